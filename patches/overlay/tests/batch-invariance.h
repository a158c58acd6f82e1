#pragma once

// what the parts of test-batch-invariance share

#include "ggml.h"
#include "ggml-alloc.h"
#include "ggml-backend.h"
#include "ggml-cpu.h"
#include "ggml-cpp.h"

#include <algorithm>
#include <cmath>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <random>
#include <string>
#include <vector>

namespace batch_invariance {

enum class extent { quick, normal, full };

struct test_state {
    int  n_pass  = 0;
    int  n_fail  = 0;
    bool verbose = false;

    extent ext       = extent::normal;
    int    n_threads = 3; // with 1 ... so many

    std::mt19937 rng{42};

    void check(bool ok, const std::string & name) {
        (ok ? n_pass : n_fail)++;
        if (!ok || verbose) {
            printf("%s: %s\n", ok ? "ok" : "FAIL", name.c_str());
            fflush(stdout);
        }
    }
};

#if defined(__GNUC__)
__attribute__((format(printf, 1, 2)))
#endif
static inline std::string text(const char * format, ...) {
    char    buffer[512];
    va_list args;
    va_start(args, format);
    vsnprintf(buffer, sizeof(buffer), format, args);
    va_end(args);
    return buffer;
}

// switches the kernels; for what is loaded from then on
static inline bool set_kernels(bool on) {
    auto * set = (void (*)(bool)) ggml_backend_reg_get_proc_address(ggml_backend_cpu_reg(), "ggml_cpu_set_batch_invariant");
    if (set) {
        set(on);
    }
    return set != nullptr;
}

// the buffer type whose weights lie in panels; NULL if this build has none
static inline ggml_backend_buffer_type_t panel_buffer_type() {
    auto * get = (ggml_backend_dev_get_extra_bufts_t) ggml_backend_reg_get_proc_address(ggml_backend_cpu_reg(), "ggml_backend_dev_get_extra_bufts");
    ggml_backend_buffer_type_t * bufts = get ? get(ggml_backend_reg_dev_get(ggml_backend_cpu_reg(), 0)) : nullptr;
    for (; bufts && *bufts; bufts++) {
        if (strcmp(ggml_backend_buft_name(*bufts), "CPU_PANEL") == 0) {
            return *bufts;
        }
    }
    return nullptr;
}

static inline std::vector<float> random_floats(std::mt19937 & rng, size_t n, float stdev = 1.0f) {
    std::normal_distribution<float> dist(0.0f, stdev);
    std::vector<float> res(n);
    for (float & x : res) {
        x = dist(rng);
    }
    return res;
}

// tensors that live in one buffer
struct arena {
    ggml_context_ptr        ctx;
    ggml_backend_buffer_ptr buffer;

    arena() {
        ggml_init_params params = { 64*ggml_tensor_overhead() + ggml_graph_overhead(), nullptr, true };
        ctx.reset(ggml_init(params));
    }

    void alloc(ggml_backend_buffer_type_t buft) { buffer.reset(ggml_backend_alloc_ctx_tensors_from_buft(ctx.get(), buft)); }
};

struct cpu {
    ggml_backend_ptr backend{ggml_backend_cpu_init()};

    // what out holds after it has been computed
    std::vector<float> compute(ggml_context * ctx, ggml_tensor * out, int n_threads) const {
        ggml_cgraph * graph = ggml_new_graph(ctx);
        ggml_build_forward_expand(graph, out);
        ggml_backend_cpu_set_n_threads(backend.get(), n_threads);
        GGML_ASSERT(ggml_backend_graph_compute(backend.get(), graph) == GGML_STATUS_SUCCESS);
        std::vector<float> res(ggml_nelements(out));
        ggml_backend_tensor_get(out, res.data(), 0, ggml_nbytes(out));
        return res;
    }
};

static inline bool same_bits(const float * a, const float * b, size_t n) {
    return memcmp(a, b, n*sizeof(float)) == 0;
}

void test_mul_mat(test_state & ts);
void test_attention(test_state & ts);
void test_geglu(test_state & ts);

#ifndef BATCH_INVARIANCE_OPS_ONLY
// mock models of every architecture (name: NULL, all), or a model file as it is and quantized to types
void test_mock_models(test_state & ts, const char * arch);
void test_model_file(test_state & ts, const std::string & path, const std::vector<std::string> & types, const std::vector<int> & depths);
#endif

} // namespace batch_invariance
