// GEGLU: a value's result must not depend on where in a row it stands, since vectors compute most of a row and a loop its end

#include "batch-invariance.h"

namespace batch_invariance {

// gelu(x)*g, row by row; x and g: n_rows rows of n values
static std::vector<float> geglu(const cpu & c, const std::vector<float> & x, const std::vector<float> & g, int64_t n, int n_threads) {
    arena a;
    ggml_tensor * tx = ggml_new_tensor_2d(a.ctx.get(), GGML_TYPE_F32, n, x.size()/n);
    ggml_tensor * tg = ggml_new_tensor_2d(a.ctx.get(), GGML_TYPE_F32, n, x.size()/n);
    ggml_tensor * y  = ggml_geglu_split(a.ctx.get(), tx, tg);
    a.alloc(ggml_backend_cpu_buffer_type());
    ggml_backend_tensor_set(tx, x.data(), 0, ggml_nbytes(tx));
    ggml_backend_tensor_set(tg, g.data(), 0, ggml_nbytes(tg));
    return c.compute(a.ctx.get(), y, n_threads);
}

void test_geglu(test_state & ts) {
    const cpu c;

    // every number that a half holds, those between, and beyond
    std::vector<float> x;
    for (uint32_t i = 0; i < 1 << 16; i++) {
        x.push_back(ggml_fp16_to_fp32((ggml_fp16_t) i));
    }
    for (const float v : { 10.0f, -10.0f, 9.9999990f, -9.9999990f, 10.000001f, -10.000001f, 1e-8f, 1e30f, -1e30f, INFINITY, -INFINITY, NAN }) {
        x.push_back(v);
    }
    for (const float v : random_floats(ts.rng, 20000, 4.0f)) {
        x.push_back(v);
    }
    x.resize(x.size()/35*35);

    auto g = random_floats(ts.rng, x.size());
    g[0xc905] = INFINITY; // beside a value below -10: its product is 0, not NaN

    // rows too short for any vector, then longer ones
    const auto single = geglu(c, x, g, 5, 1);
    for (const int64_t n : { (int64_t) 35, (int64_t) x.size() }) {
        for (int n_threads = 1; n_threads <= ts.n_threads; n_threads++) {
            const auto res  = geglu(c, x, g, n, n_threads);
            bool       same = true;
            for (size_t i = 0; i < x.size(); i++) {
                same = same && (same_bits(&res[i], &single[i], 1) || (std::isnan(res[i]) && std::isnan(single[i])));
            }
            ts.check(same, text("geglu: rows of %d values as rows of 5, %d threads", (int) n, n_threads));
        }
    }
    ts.check(std::fabs(single[0x3c00]/g[0x3c00] - 0.8412f) < 1e-3f && single[0xc905] == 0.0f, "geglu: gelu(1) = 0.8412, and nothing is left below -10");
}

} // namespace batch_invariance
