// matrix multiplication: a column's result must not depend on the columns beside it, nor on the threads, and be right

#include "batch-invariance.h"

#include <map>
#include <memory>

namespace batch_invariance {

static constexpr ggml_type PANEL_TYPES[] = {
    GGML_TYPE_F32, GGML_TYPE_F16, GGML_TYPE_BF16, GGML_TYPE_Q4_0, GGML_TYPE_Q4_1, GGML_TYPE_Q5_0, GGML_TYPE_Q5_1, GGML_TYPE_Q8_0,
    GGML_TYPE_Q4_K, GGML_TYPE_Q5_K, GGML_TYPE_Q6_K, GGML_TYPE_IQ4_NL,
};

// without panels: computed column by column
static constexpr ggml_type COLUMN_TYPES[] = { GGML_TYPE_F32, GGML_TYPE_F16, GGML_TYPE_BF16, GGML_TYPE_Q8_0, GGML_TYPE_Q2_K, GGML_TYPE_Q3_K, GGML_TYPE_IQ4_XS };

// what is left of the result is rounding of F32 sums: a share of the sum of the products' magnitudes
static constexpr double SUM_TOL = 2e-6;

// of the results, against activations that are not rounded to 8 bits; some columns hold a single large value
static double nmse_tol(ggml_type type) {
    return type == GGML_TYPE_F32 || type == GGML_TYPE_F16 ? 1e-11 : type == GGML_TYPE_BF16 ? 1e-5 : 1e-2;
}

static int64_t largest_width(const test_state & ts) { return ts.ext == extent::quick ? 34 : 64; }

// rows of weights as bytes of the type, and as the numbers that they stand for
struct weights {
    ggml_type            type;
    int64_t              K, M;
    std::vector<uint8_t> bytes;
    std::vector<float>   values;

    weights(std::mt19937 & rng, ggml_type type, int64_t K, int64_t M, bool extreme) : type(type), K(K), M(M), bytes(ggml_row_size(type, K)*M), values(K*M) {
        const auto x = random_floats(rng, K*M, 0.3f);
        ggml_quantize_chunk(type, x.data(), bytes.data(), 0, M, K, nullptr);
        if (extreme) {
            make_extreme(rng);
        }
        for (int64_t r = 0; r < M; r++) {
            const void * src = bytes.data() + r*ggml_row_size(type, K);
            if (type == GGML_TYPE_F32) {
                memcpy(values.data() + r*K, src, K*sizeof(float));
            } else {
                ggml_get_type_traits(type)->to_float(src, values.data() + r*K, K);
            }
        }
    }

    // integers that no quantizer writes but the format allows: those of largest magnitude, and any
    void make_extreme(std::mt19937 & rng) {
        // where the integers lie in a block; what comes before and after are scales in floating point
        static const std::map<ggml_type, std::pair<size_t, size_t>> INTEGERS = {
            { GGML_TYPE_Q4_0,   { 2,  18 } }, { GGML_TYPE_Q4_1, { 4, 20 } }, { GGML_TYPE_Q5_0, { 2,  22 } }, { GGML_TYPE_Q5_1, { 4, 24 } }, { GGML_TYPE_Q8_0, { 2, 34 } },
            { GGML_TYPE_IQ4_NL, { 2,  18 } }, { GGML_TYPE_Q4_K, { 4, 144 } }, { GGML_TYPE_Q5_K, { 4, 176 } }, { GGML_TYPE_Q6_K, { 0, 208 } },
        };
        const auto   range = INTEGERS.at(type);
        const size_t size  = ggml_type_size(type);
        for (size_t b = 0; b < bytes.size(); b += size) {
            const uint32_t kind = rng()%4;
            for (size_t i = range.first; i < range.second; i++) {
                bytes[b + i] = kind == 0 ? 0xff : kind == 1 ? 0x80 : kind == 2 ? 0x00 : (uint8_t) rng();
            }
        }
    }
};

// a column as the kernels see it
static std::vector<float> as_seen(ggml_type type, const float * x, int64_t K) {
    std::vector<float> res(x, x + K);
    if (type == GGML_TYPE_BF16 && ggml_cpu_has_avx512_bf16()) {
        for (float & v : res) {
            v = ggml_bf16_to_fp32(ggml_fp32_to_bf16(v));
        }
    }
    if (ggml_is_quantized(type)) {
        for (int64_t b = 0; b < K; b += 32) {
            float amax = 0.0f;
            for (int64_t i = b; i < b + 32; i++) {
                amax = std::max(amax, std::fabs(x[i]));
            }
            const float id = amax > 0.0f ? 127.0f/amax : 0.0f;
            const float d  = amax/127.0f;
            for (int64_t i = b; i < b + 32; i++) {
                res[i] = d*std::nearbyint(x[i]*id);
            }
        }
    }
    return res;
}

// the error of y = w*x, for one column: as a share of the tolerance, and squared for the NMSE
struct error_sums {
    double share = 0.0, err2 = 0.0, ref2 = 0.0;

    void add(const weights & w, int64_t row0, int64_t rows, const float * x, const float * y) {
        const auto seen = as_seen(w.type, x, w.K);
        for (int64_t r = 0; r < rows; r++) {
            const float * v = w.values.data() + (row0 + r)*w.K;
            double sum = 0.0, exact = 0.0, size = 0.0;
            for (int64_t i = 0; i < w.K; i++) {
                sum   += (double) v[i]*seen[i];
                exact += (double) v[i]*x[i];
                size  += std::fabs((double) v[i]*seen[i]);
            }
            // not std::max, which lets a NaN pass
            const double s = std::fabs(y[r] - sum)/(SUM_TOL*size + 1e-30);
            share = s <= share ? share : s;
            err2 += (y[r] - exact)*(y[r] - exact);
            ref2 += exact*exact;
        }
    }

    bool ok(ggml_type type, bool extreme) const { return share <= 1.0 && (extreme || err2 <= nmse_tol(type)*ref2); }
};

// activations: ordinary ones, zeros, a single large one, and blocks that are all alike
static std::vector<float> activations(std::mt19937 & rng, int64_t K, int64_t n) {
    auto x = random_floats(rng, K*n);
    for (int64_t c = 0; c < n; c++) {
        float * col = x.data() + c*K;
        switch (c%8) {
            case 3: std::fill(col, col + std::min<int64_t>(K, 32), 0.0f); break;
            case 5: col[rng()%K] = 300.0f; break;
            case 6: for (int64_t i = 0; i < K; i++) { col[i] = i%2 ? 1.0f : -1.0f; } break;
            case 7: std::fill(col, col + K, -2.0f); break;
            default: break;
        }
    }
    return x;
}

struct matrix {
    arena         a;
    ggml_tensor * t;

    matrix(const weights & w, ggml_backend_buffer_type_t buft, int64_t n_expert = 1) {
        t = n_expert == 1 ? ggml_new_tensor_2d(a.ctx.get(), w.type, w.K, w.M) : ggml_new_tensor_3d(a.ctx.get(), w.type, w.K, w.M/n_expert, n_expert);
        a.alloc(buft);
        ggml_backend_tensor_set(t, w.bytes.data(), 0, w.bytes.size());
    }
};

// n columns of x from column c0 on
static std::vector<float> multiply(const cpu & c, ggml_tensor * w, const float * x, int64_t c0, int64_t n, int n_threads) {
    arena a;
    ggml_tensor * xt = ggml_new_tensor_2d(a.ctx.get(), GGML_TYPE_F32, w->ne[0], n);
    ggml_tensor * y  = ggml_mul_mat(a.ctx.get(), w, xt);
    a.alloc(ggml_backend_cpu_buffer_type());
    ggml_backend_tensor_set(xt, x + c0*w->ne[0], 0, ggml_nbytes(xt));
    GGML_ASSERT(ggml_backend_supports_op(c.backend.get(), y));
    return c.compute(a.ctx.get(), y, n_threads);
}

struct shape {
    int64_t          K, M;
    std::vector<int> widths; // empty: all
    bool             extreme;
};

static void test_shape(test_state & ts, const cpu & c, ggml_backend_buffer_type_t buft, ggml_type type, const shape & s) {
    const std::string name = text("mul_mat %s %s %d x %d%s", ggml_backend_buft_name(buft), ggml_type_name(type), (int) s.M, (int) s.K, s.extreme ? " extreme" : "");

    std::vector<int> widths = s.widths;
    for (int n = 1; s.widths.empty() && n <= largest_width(ts); n++) {
        widths.push_back(n);
    }
    const int n_max = *std::max_element(widths.begin(), widths.end());

    const weights w(ts.rng, type, s.K, s.M, s.extreme);
    const matrix  m(w, buft);
    const auto    x = activations(ts.rng, s.K, n_max);

    std::vector<float> want(s.M*n_max);
    error_sums err;
    for (int i = 0; i < n_max; i++) {
        const auto y = multiply(c, m.t, x.data(), i, 1, 1);
        std::copy(y.begin(), y.end(), want.begin() + i*s.M);
        if (i < 24) {
            err.add(w, 0, s.M, x.data() + i*s.K, y.data());
        }
    }
    // the stock kernels for a column round other activations than these
    const bool panels = buft != ggml_backend_cpu_buffer_type();
    ts.check(panels ? err.ok(type, s.extreme) : err.err2 <= std::max(1e-2, nmse_tol(type))*err.ref2,
            text("%s: close to the reference (%.2f of the tolerance, NMSE %.1e)", name.c_str(), err.share, err.err2/err.ref2));

    int n_bad = 0, first_bad = 0;
    for (int t = 1; t <= ts.n_threads; t++) {
        for (const int n : widths) {
            for (const int c0 : { 0, n_max - n }) {
                const auto y = multiply(c, m.t, x.data(), c0, n, t);
                if (!same_bits(y.data(), want.data() + c0*s.M, y.size()) && n_bad++ == 0) {
                    first_bad = n;
                }
                if (n == n_max) {
                    break;
                }
            }
        }
    }
    ts.check(n_bad == 0, text("%s: columns as by themselves, 1 to %d of them, 1 to %d threads (%d differ, the first with %d)", name.c_str(), n_max, ts.n_threads, n_bad, first_bad));
}

// columns in several planes, and columns that do not lie one after another
static void test_planes(test_state & ts, const cpu & c, ggml_backend_buffer_type_t buft, ggml_type type) {
    const int64_t K = 256, M = 37, n1 = 5, n2 = 3;
    const weights w(ts.rng, type, K, M, false);
    const matrix  m(w, buft);
    const auto    x = activations(ts.rng, K, n1*n2);

    for (const bool permuted : { false, true }) {
        arena a;
        ggml_tensor * xt = ggml_new_tensor_3d(a.ctx.get(), GGML_TYPE_F32, K, n1, n2);
        ggml_tensor * y  = ggml_mul_mat(a.ctx.get(), m.t, permuted ? ggml_permute(a.ctx.get(), xt, 0, 2, 1, 3) : xt);
        a.alloc(ggml_backend_cpu_buffer_type());
        ggml_backend_tensor_set(xt, x.data(), 0, ggml_nbytes(xt));
        const auto got = c.compute(a.ctx.get(), y, 2);
        int n_bad = 0;
        for (int64_t i = 0; i < n1*n2; i++) {
            const auto want = multiply(c, m.t, x.data(), permuted ? i%n2*n1 + i/n2 : i, 1, 1);
            n_bad += !same_bits(got.data() + i*M, want.data(), M);
        }
        ts.check(n_bad == 0, text("mul_mat %s %s: %s planes of columns (%d differ)", ggml_backend_buft_name(buft), ggml_type_name(type), permuted ? "permuted" : "several", n_bad));
    }
}

// several matrices after each other, with the same activations and with others, of one type and of several: as each by itself
static void test_neighbours(test_state & ts, const cpu & c, ggml_backend_buffer_type_t buft, ggml_type type, int64_t K, const std::vector<int64_t> & rows) {
    const ggml_type other = type == GGML_TYPE_F32 ? GGML_TYPE_F16 : GGML_TYPE_F32;
    const int       n_max = 33;

    std::vector<weights>                 ws;
    std::vector<std::unique_ptr<matrix>> ms;
    for (size_t i = 0; i < rows.size(); i++) {
        // the one before the last is of another type
        ws.emplace_back(ts.rng, i + 2 == rows.size() ? other : type, K, rows[i], false);
        ms.push_back(std::make_unique<matrix>(ws.back(), buft));
    }
    // the last matrix takes the other ones
    const std::vector<float> xs[2] = { activations(ts.rng, K, n_max), activations(ts.rng, K, n_max) };

    int n_bad = 0;
    for (int t = 1; t <= ts.n_threads; t++) {
        for (const int n : { 1, 2, 8, 16, 17, n_max }) {
            arena a;
            ggml_tensor * xt[2];
            for (auto & x : xt) {
                x = ggml_new_tensor_2d(a.ctx.get(), GGML_TYPE_F32, K, n);
            }
            std::vector<ggml_tensor *> ys;
            ggml_cgraph * graph = ggml_new_graph(a.ctx.get());
            for (size_t i = 0; i < ms.size(); i++) {
                ys.push_back(ggml_mul_mat(a.ctx.get(), ms[i]->t, xt[i + 1 == ms.size()]));
                // an empty operation in between hinders nobody
                ggml_build_forward_expand(graph, ggml_reshape_1d(a.ctx.get(), ys.back(), ggml_nelements(ys.back())));
            }
            a.alloc(ggml_backend_cpu_buffer_type());
            for (int i = 0; i < 2; i++) {
                ggml_backend_tensor_set(xt[i], xs[i].data(), 0, ggml_nbytes(xt[i]));
            }
            ggml_backend_cpu_set_n_threads(c.backend.get(), t);
            GGML_ASSERT(ggml_backend_graph_compute(c.backend.get(), graph) == GGML_STATUS_SUCCESS);
            for (size_t i = 0; i < ms.size(); i++) {
                const auto want = multiply(c, ms[i]->t, xs[i + 1 == ms.size()].data(), 0, n, 1);
                std::vector<float> got(want.size());
                ggml_backend_tensor_get(ys[i], got.data(), 0, got.size()*sizeof(float));
                n_bad += !same_bits(got.data(), want.data(), want.size());
            }
        }
    }
    ts.check(n_bad == 0, text("mul_mat %s: %d matrices of up to %d x %d after each other (%d differ)", ggml_type_name(type), (int) rows.size(), (int) *std::max_element(rows.begin(), rows.end()), (int) K, n_bad));
}

// mixtures of experts: every token's use of an expert as if it were alone, and as the expert's matrix by itself gives it
static void test_experts(test_state & ts, const cpu & c, ggml_backend_buffer_type_t buft, ggml_type type) {
    const int64_t K = 256, M = 43, n_expert = 6, n_used = 3, n_max = ts.ext == extent::quick ? 20 : 64;

    const weights w(ts.rng, type, K, M*n_expert, false);
    const matrix  m(w, buft, n_expert);

    for (const int64_t n_x : { (int64_t) 1, n_used }) { // activations shared by a token's experts, or each its own
        for (const bool skewed : { false, true }) {
            const auto x = activations(ts.rng, K, n_x*n_max);
            std::vector<int32_t> ids;
            for (int64_t t = 0; t < n_max; t++) {
                std::vector<int32_t> order(n_expert);
                for (int64_t e = 0; e < n_expert; e++) {
                    order[e] = e;
                }
                if (!skewed) { // else all tokens use the first experts, none the last
                    std::shuffle(order.begin(), order.end(), ts.rng);
                }
                ids.insert(ids.end(), order.begin(), order.begin() + n_used);
            }

            const auto run = [&](int64_t t0, int64_t n, int n_threads) {
                arena a;
                ggml_tensor * xt = ggml_new_tensor_3d(a.ctx.get(), GGML_TYPE_F32, K, n_x, n);
                ggml_tensor * it = ggml_new_tensor_2d(a.ctx.get(), GGML_TYPE_I32, n_used, n);
                ggml_tensor * y  = ggml_mul_mat_id(a.ctx.get(), m.t, xt, it);
                a.alloc(ggml_backend_cpu_buffer_type());
                ggml_backend_tensor_set(xt, x.data() + t0*n_x*K, 0, ggml_nbytes(xt));
                ggml_backend_tensor_set(it, ids.data() + t0*n_used, 0, ggml_nbytes(it));
                GGML_ASSERT(ggml_backend_supports_op(c.backend.get(), y));
                return c.compute(a.ctx.get(), y, n_threads);
            };

            std::vector<float> want;
            error_sums err;
            for (int64_t t = 0; t < n_max; t++) {
                const auto y = run(t, 1, 1);
                for (int64_t u = 0; u < n_used; u++) {
                    err.add(w, ids[t*n_used + u]*M, M, x.data() + (t*n_x + u%n_x)*K, y.data() + u*M);
                }
                want.insert(want.end(), y.begin(), y.end());
            }
            const std::string name = text("mul_mat_id %s%s%s", ggml_type_name(type), n_x == 1 ? "" : ", activations by expert", skewed ? ", few experts" : "");
            ts.check(err.ok(type, false), text("%s: close to the reference (%.2f of the tolerance, NMSE %.1e)", name.c_str(), err.share, err.err2/err.ref2));

            int n_bad = 0;
            for (int t = 1; t <= ts.n_threads; t++) {
                for (const int64_t n : { 2, 3, 5, 8, 13, 16, 20, 33, 64 }) {
                    if (n > n_max) {
                        continue;
                    }
                    const auto y = run(n_max - n, n, t);
                    n_bad += !same_bits(y.data(), want.data() + (n_max - n)*n_used*M, y.size());
                }
            }
            ts.check(n_bad == 0, text("%s: tokens as by themselves (%d differ)", name.c_str(), n_bad));
        }
    }
}

// other layouts have kernels of their own for one column and for several (repacked weights, AMX tiles): none is taken while these
// kernels are on, least of all for a type without panels, whose columns are read as the file has them
static void test_other_layouts(test_state & ts, const cpu & c) {
    auto * get = (ggml_backend_dev_get_extra_bufts_t) ggml_backend_reg_get_proc_address(ggml_backend_cpu_reg(), "ggml_backend_dev_get_extra_bufts");
    ggml_backend_buffer_type_t * bufts = get ? get(ggml_backend_reg_dev_get(ggml_backend_cpu_reg(), 0)) : nullptr;
    for (; bufts && *bufts; bufts++) {
        if (*bufts == panel_buffer_type()) {
            continue;
        }
        for (int i = 0; i < GGML_TYPE_COUNT; i++) {
            const auto type = (ggml_type) i;
            if (ggml_blck_size(type) == 0 || ggml_get_type_traits_cpu(type)->vec_dot == nullptr) {
                continue;
            }
            arena a;
            // as a model's loader asks: in an empty buffer
            const ggml_backend_buffer_ptr buffer(ggml_backend_buft_alloc_buffer(*bufts, 0));
            ggml_tensor * w = ggml_new_tensor_2d(a.ctx.get(), type, 512, 64);
            ggml_tensor * y = ggml_mul_mat(a.ctx.get(), w, ggml_new_tensor_2d(a.ctx.get(), GGML_TYPE_F32, 512, 4));
            w->buffer = buffer.get();
            ts.check(!ggml_backend_supports_op(c.backend.get(), y), text("mul_mat %s %s: not taken", ggml_backend_buft_name(*bufts), ggml_type_name(type)));
        }
    }
}

void test_mul_mat(test_state & ts) {
    const cpu c;

    test_other_layouts(ts, c);

    const auto panels = panel_buffer_type();
    ts.check(panels != nullptr, "this build has kernels for weights in panels");

    for (const ggml_type type : PANEL_TYPES) {
        if (!panels) {
            break;
        }
        const int64_t block = ggml_blck_size(type);
        const int64_t odd   = block == 1 ? (type == GGML_TYPE_BF16 ? 70 : 71) : block == 32 ? 288 : 768;
        std::vector<shape> shapes = {
            { odd,                           67, {}, false },
            { std::max<int64_t>(block, 64),   3, { 1, 2, 16, 17, 33 }, false },
            { std::max<int64_t>(block, 32),   2, { 1, 5, 12, 13 }, false },
            { 1024,                          48, { 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 16, 24, 25, 32 }, false },
        };
        if (ggml_is_quantized(type)) {
            shapes.push_back({ 512, 40, { 1, 2, 8, 16, 20 }, true });
        }
        if (ts.ext != extent::quick) {
            // several groups of panels, and more columns than a draft tree has
            shapes.push_back({ 512, 1003, { 1, 8, 48, 65, 100 }, false });
            // more than what each thread converts for itself, at 2 MiB
            shapes.push_back({ 2048, ggml_is_quantized(type) ? 4100 : 1100, { 1, 3, 8, 16 }, false });
        }
        if (ts.ext == extent::full) {
            shapes.push_back({ 8192,  64, {}, false });
            shapes.push_back({ 2048, 515, {}, false });
            shapes.push_back({ 2048, 515, {}, ggml_is_quantized(type) });
            shapes.push_back({ 512, 1003, { 128, 512 }, false });
        }
        for (const auto & s : shapes) {
            test_shape(ts, c, panels, type, s);
        }
        test_planes(ts, c, panels, type);
        test_neighbours(ts, c, panels, type, 512, { 96, 40, 3, 67, 5, 70, 33, 21 });
        if (ts.ext != extent::quick) {
            // one that is too large for each thread to convert for itself, among small ones
            test_neighbours(ts, c, panels, type, 2048, { 64, ggml_is_quantized(type) ? 4100 : 1100, 48, 64, 80 });
        }
        test_experts(ts, c, panels, type);
    }

    for (const ggml_type type : COLUMN_TYPES) {
        test_shape(ts, c, ggml_backend_cpu_buffer_type(), type, { 512, 67, { 1, 2, 3, 4, 5, 8, 15, 16, 17, 32, 64 }, false });
    }
}

} // namespace batch_invariance
