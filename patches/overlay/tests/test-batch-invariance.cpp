// the batch-invariant CPU kernels [aded]: whatever stands beside it in a batch, a token's result is the same to the last bit,
// and close to a reference computed in double precision
//
//   test-batch-invariance [-q|-f] [-t threads] [-s seed] [-v] [-o | -a arch | -m model.gguf [-T type,...] [-d depth,...]]
//
//   -q, -f  fewer cases, for slow machines; all of them, which takes many minutes
//   -t N    with 1 ... N threads (default: 3)
//   -o      the operations alone: matrix multiplication, attention, GEGLU
//   -a A    mock models of this architecture alone
//   -m F    a model file, quantized to each of the types (default: as it is), behind so many tokens (default: 10)
//
// without -o, -a and -m: the operations, then mock models of every architecture
// with BATCH_INVARIANCE_OPS_ONLY it needs ggml alone, for builds for other instruction sets
// the last line is "N passed, N failed"

#include "batch-invariance.h"

#include <sstream>

using namespace batch_invariance;

static std::vector<std::string> split(const std::string & list) {
    std::vector<std::string> res;
    std::stringstream ss(list);
    for (std::string item; std::getline(ss, item, ',');) {
        res.push_back(item);
    }
    return res;
}

int main(int argc, char ** argv) {
    test_state ts;

    std::string arch;
    std::string model;
    bool ops = false;
    std::vector<std::string> types;
    std::vector<int>         depths = { 10 };

    for (int i = 1; i < argc; i++) {
        const std::string arg  = argv[i];
        const bool        more = i + 1 < argc;
        if (arg == "-q" || arg == "-f") {
            ts.ext = arg == "-q" ? extent::quick : extent::full;
        } else if (arg == "-v") {
            ts.verbose = true;
        } else if (arg == "-o") {
            ops = true;
        } else if (arg == "-t" && more) {
            ts.n_threads = std::stoi(argv[++i]);
        } else if (arg == "-s" && more) {
            ts.rng.seed(std::stoul(argv[++i]));
        } else if (arg == "-a" && more) {
            arch = argv[++i];
        } else if (arg == "-m" && more) {
            model = argv[++i];
        } else if (arg == "-T" && more) {
            types = split(argv[++i]);
        } else if (arg == "-d" && more) {
            depths.clear();
            for (const auto & depth : split(argv[++i])) {
                depths.push_back(std::stoi(depth));
            }
        } else {
            fprintf(stderr, "usage: %s [-q|-f] [-t threads] [-s seed] [-v] [-o | -a arch | -m model.gguf [-T type,...] [-d depth,...]]\n", argv[0]);
            return 2;
        }
    }

    ts.check(set_kernels(true), "this build can switch the kernels");

    if (arch.empty() && model.empty()) {
        test_mul_mat(ts);
        test_attention(ts);
        test_geglu(ts);
    }
#ifdef BATCH_INVARIANCE_OPS_ONLY
    (void) ops;
    ts.check(arch.empty() && model.empty(), "a build without llama has no models");
#else
    if (!model.empty()) {
        test_model_file(ts, model, types, depths);
    } else if (!ops) {
        test_mock_models(ts, arch.empty() ? nullptr : arch.c_str());
    }
#endif

    printf("%d passed, %d failed\n", ts.n_pass, ts.n_fail);
    return ts.n_fail == 0 && ts.n_pass > 0 ? 0 : 1;
}
