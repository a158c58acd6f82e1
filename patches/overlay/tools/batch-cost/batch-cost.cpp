// What a batch of n tokens costs, with the logits of all of them, and whether these logits are those of one-by-one
// decoding. Driven over standard input, so that two builds can be measured turn by turn; only llama.h must be there, so that
// the program also runs on another build's libraries. Where llama_set_graph_cache() is, it is used as the server uses it.
//
// usage: llama-batch-cost -m MODEL [-t THREADS] [-c CELLS] [-fa on|off] [-ctk TYPE] [-ctv TYPE] [--no-repack]
//
// commands, one a line, and the lines of JSON that answer them:
//   depth D        fills the cache with D tokens                     {"depth":256}
//   time N R       R batches of N tokens                             {"n":8,"us":[...]}
//   prefill N R    R batches of N tokens, logits of the last alone   {"n":512,"us":[...]}
//   check N [W]    W (64) tokens in batches of N against one by one  {"n":8,"identical":true,"max_diff":0}
//   memory MIB R   R passes of all threads over MIB MiB              {"mib":512,"gb_s":[...]}
//   info           what the libraries were built for                 {"system":"CPU : AVX2 = 1 | ..."}

#include "llama.h"

#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#if defined(__GNUC__) && !defined(_WIN32)
// of src/llama-ext.h; missing in other builds
LLAMA_API void llama_set_graph_cache(struct llama_context * ctx, uint32_t n_tokens) __attribute__((weak));
#else
static void (* llama_set_graph_cache)(struct llama_context * ctx, uint32_t n_tokens) = nullptr;
#endif

static int usage(const std::string & what) {
    fprintf(stderr, "%s\nusage: llama-batch-cost -m MODEL [-t THREADS] [-c CELLS] [-fa on|off] [-ctk TYPE] [-ctv TYPE] [--no-repack]\n", what.c_str());
    return 2;
}

struct bench {
    llama_model *   model;
    llama_context * ctx;
    llama_memory_t  mem;
    int             n_vocab;
    int             depth = 0;

    llama_token token(int pos) const { return (llama_token) (((uint64_t) pos*2654435761u + 12345u)%(uint64_t) n_vocab); }

    void truncate() const { llama_memory_seq_rm(mem, 0, depth, -1); }

    // n tokens from position pos on
    bool decode(int pos, int n, bool all_logits) const {
        llama_batch batch = llama_batch_init(n, 0, 1);
        for (int i = 0; i < n; i++) {
            batch.token[i]     = token(pos + i);
            batch.pos[i]       = pos + i;
            batch.n_seq_id[i]  = 1;
            batch.seq_id[i][0] = 0;
            batch.logits[i]    = all_logits || i == n - 1;
        }
        batch.n_tokens = n;
        const int status = llama_decode(ctx, batch);
        llama_batch_free(batch);
        llama_synchronize(ctx);
        if (status != 0) {
            printf("{\"error\":\"llama_decode answered %d for %d tokens at position %d\"}\n", status, n, pos);
        }
        return status == 0;
    }

    void time(int n, int reps, bool all_logits) const {
        std::ostringstream us;
        for (int i = 0; i < reps; i++) {
            const auto t0 = std::chrono::steady_clock::now();
            const bool ok = decode(depth, n, all_logits);
            const auto t1 = std::chrono::steady_clock::now();
            truncate();
            if (!ok) {
                return;
            }
            us << (i ? "," : "") << std::chrono::duration<double, std::micro>(t1 - t0).count();
        }
        printf("{\"n\":%d,\"us\":[%s]}\n", n, us.str().c_str());
    }

    bool logits(int width, int n, std::vector<float> & out) const {
        out.clear();
        for (int i = 0; i < width; i += n) {
            const int m = std::min(n, width - i);
            if (!decode(depth + i, m, true)) {
                return false;
            }
            for (int j = 0; j < m; j++) {
                const float * row = llama_get_logits_ith(ctx, j);
                out.insert(out.end(), row, row + n_vocab);
            }
        }
        truncate();
        return true;
    }

    void check(int n, int width) const {
        std::vector<float> one, many;
        if (!logits(width, 1, one) || !logits(width, n, many)) {
            return;
        }
        double diff = 0;
        for (size_t i = 0; i < one.size(); i++) {
            diff = std::max(diff, (double) std::fabs(one[i] - many[i]));
        }
        const bool identical = memcmp(one.data(), many.data(), one.size()*sizeof(float)) == 0;
        printf("{\"n\":%d,\"identical\":%s,\"max_diff\":%g}\n", n, identical ? "true" : "false", diff);
    }

    bool fill(int d) {
        depth = 0;
        truncate();
        for (int pos = 0; pos < d; pos += 256) {
            if (!decode(pos, std::min(256, d - pos), false)) {
                return false;
            }
        }
        depth = d;
        printf("{\"depth\":%d}\n", d);
        return true;
    }
};

// what reading memory gives, once through, as a step reads its weights: huge pages, prefetch, all threads
static void memory(int mib, int reps, int n_threads) {
    const size_t n    = ((size_t) mib << 20)/sizeof(uint64_t);
    const size_t page = 2 << 20;

    std::vector<uint64_t> buffer;
    buffer.reserve(n + page/sizeof(uint64_t));
    uint64_t * data = (uint64_t *) (((uintptr_t) buffer.data() + page - 1)/page*page);
#if defined(__linux__)
    madvise(data, n*sizeof(uint64_t), MADV_HUGEPAGE);
#endif
    memset(data, 1, n*sizeof(uint64_t));

    std::vector<uint64_t> sums(n_threads*8);
    auto pass = [&](int t) {
        const uint64_t * p   = data + n/8*t/n_threads*8;
        const uint64_t * end = data + n/8*(t + 1)/n_threads*8;
        uint64_t s[8] = { 0 };
        for (; p < end; p += 8) { // a cache line
            __builtin_prefetch((const char *) p + 4096);
            for (int i = 0; i < 8; i++) {
                s[i] += p[i];
            }
        }
        for (int i = 0; i < 8; i++) {
            sums[8*t] += s[i];
        }
    };
    std::ostringstream rates;
    for (int i = 0; i < reps; i++) {
        std::vector<std::thread> threads;
        const auto t0 = std::chrono::steady_clock::now();
        for (int t = 1; t < n_threads; t++) {
            threads.emplace_back(pass, t);
        }
        pass(0);
        for (auto & thread : threads) {
            thread.join();
        }
        const auto t1 = std::chrono::steady_clock::now();
        rates << (i ? "," : "") << n*sizeof(uint64_t)/std::chrono::duration<double, std::nano>(t1 - t0).count();
    }
    uint64_t sum = 0;
    for (uint64_t s : sums) {
        sum += s;
    }
    if (sum != 0x0101010101010101u*(uint64_t) n*(uint64_t) reps) {
        printf("{\"error\":\"memory does not hold what was written\"}\n");
        return;
    }
    printf("{\"mib\":%d,\"gb_s\":[%s]}\n", mib, rates.str().c_str());
}

static bool cache_type(const std::string & name, ggml_type & type) {
    for (int i = 0; i < GGML_TYPE_COUNT; i++) {
        if (ggml_type_name((ggml_type) i) != nullptr && name == ggml_type_name((ggml_type) i)) {
            type = (ggml_type) i;
            return true;
        }
    }
    return false;
}

int main(int argc, char ** argv) {
    std::string path;
    int         n_threads = 2;

    llama_model_params   mparams = llama_model_default_params();
    llama_context_params cparams = llama_context_default_params();
    cparams.n_ctx = 1024;

    for (int i = 1; i < argc; i++) {
        const std::string arg = argv[i];
        if (arg == "--no-repack") {
            mparams.use_extra_bufts = false;
            continue;
        }
        if (++i == argc) {
            return usage("no value for " + arg);
        }
        const std::string value = argv[i];
        bool              ok    = true;
        if (arg == "-m") {
            path = value;
        } else if (arg == "-t") {
            ok = (n_threads = atoi(value.c_str())) > 0;
        } else if (arg == "-c") {
            ok = (cparams.n_ctx = atoi(value.c_str())) > 0;
        } else if (arg == "-fa") {
            ok = value == "on" || value == "off";
            cparams.flash_attn_type = value == "on" ? LLAMA_FLASH_ATTN_TYPE_ENABLED : LLAMA_FLASH_ATTN_TYPE_DISABLED;
        } else if (arg == "-ctk") {
            ok = cache_type(value, cparams.type_k);
        } else if (arg == "-ctv") {
            ok = cache_type(value, cparams.type_v);
        } else {
            return usage("unknown option " + arg);
        }
        if (!ok) {
            return usage("wrong value for " + arg + ": " + value);
        }
    }
    if (path.empty()) {
        return usage("no model given");
    }
    cparams.n_batch  = 512;
    cparams.n_ubatch = 512;
    cparams.n_threads = cparams.n_threads_batch = n_threads;

    llama_log_set([](ggml_log_level level, const char * text, void *) {
        if (level == GGML_LOG_LEVEL_ERROR) {
            fputs(text, stderr);
        }
    }, nullptr);
    llama_backend_init();

    bench b;
    b.model = llama_model_load_from_file(path.c_str(), mparams);
    b.ctx   = b.model ? llama_init_from_model(b.model, cparams) : nullptr;
    if (b.ctx == nullptr) {
        fprintf(stderr, "cannot load %s\n", path.c_str());
        return 1;
    }
    if (llama_set_graph_cache) {
        llama_set_graph_cache(b.ctx, 192);
    }
    b.mem     = llama_get_memory(b.ctx);
    b.n_vocab = llama_vocab_n_tokens(llama_model_get_vocab(b.model));

    std::string line;
    while (std::getline(std::cin, line)) {
        std::istringstream in(line);
        std::string        command;
        int                n = 0, m = 0;
        in >> command >> n >> m;
        if (n < 0 || (n == 0 && command != "depth" && command != "info")) {
            printf("{\"error\":\"a positive number must follow the command\"}\n");
        } else if (command == "depth") {
            b.fill(n);
        } else if (command == "time" || command == "prefill") {
            b.time(n, std::max(1, m), command == "time");
        } else if (command == "check") {
            b.check(n, m > 0 ? m : 64);
        } else if (command == "memory") {
            memory(n, std::max(1, m), n_threads);
        } else if (command == "info") {
            printf("{\"system\":\"%s\"}\n", llama_print_system_info());
        } else {
            printf("{\"error\":\"unknown command\"}\n");
        }
        fflush(stdout);
    }
    llama_free(b.ctx);
    llama_model_free(b.model);
    llama_backend_free();
    return 0;
}
