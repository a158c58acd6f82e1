// Flash attention whose result for a query depends on nothing but the cells that it sees and their order.
//
// For every query: scores over all cells, their maximum, the exponentials, and then the sum over the cells one after
// another. A cell that the mask hides adds exactly zero, so that rejected nodes of a draft tree between the visible
// cells, or another number of cells past them, change no bit. There is no rescaling at tile borders (as in
// arXiv 2205.14135) and no splitting of the cells among threads (as the stock path does for one query), since both
// make the rounding depend on where in the cache a cell lies.

#include "simd.h"

#include "invariant.h"

#include "ggml-cpu-impl.h"
#include "ggml-cpu.h"
#include "vec.h"

#include <algorithm>
#include <cmath>
#include <type_traits>

#ifdef GGML_INVARIANT

namespace ggml::cpu::invariant {

static inline f32v exp_f32(f32v v) {
#if defined(GGML_INVARIANT_NEON)
    return { ggml_v_expf(v.a), ggml_v_expf(v.b) };
#else
    return ggml_v_expf(v);
#endif
}

static constexpr int     TILE       = 16;         // cells that are converted to F32 at once
static constexpr int     MAX_FEW    = LANES == 16 ? 12 : 9; // queries that see a tile for which neither transposing nor converting cells pays (measured)
static constexpr int     SUM_VECS   = LANES == 16 ? 4 : 2; // vectors of a head whose weighted sums, for four queries, the registers hold
static constexpr int     MAX_ROWS   = 32;         // queries that share the converted cells
static constexpr int     MAX_RUN    = 256;        // rows of a small batch that one thread computes at once, of one head or several
static constexpr int     MAX_TOKENS = 64;         // queries of such a batch
static constexpr size_t  ALIGN      = 64;         // a vector that lies in two lines of the cache is read twice
static constexpr int64_t MAX_SCORES = 256 << 10;  // floats: the scores of the rows at once, unless one row needs more

struct attn {
    const ggml_tensor * dst;
    const ggml_tensor * q;
    const ggml_tensor * k;
    const ggml_tensor * v;
    const ggml_tensor * mask;
    const ggml_tensor * order;   // [n_kv, n_stream] cells by sequence and position, -1 at the front: as they are (src/llama-kv-order.h); may be NULL
    const ggml_tensor * ordered; // the mask in that order; may be NULL
    const ggml_tensor * sinks;

    int64_t DK, DV;      // sizes of a head
    int64_t DKp, DVp;    // the same, padded to whole vectors
    int64_t n_kv, n_kvp; // cells; padded to whole tiles
    int64_t s_stride;    // from one row of scores to the next: not a multiple of a page, whose lines would share few sets of the cache
    int64_t group;       // query heads that share a head of K and V
    int64_t n_rows;      // queries (and query heads) that share a head of K and V
    int64_t n_heads;     // heads of K and V, of all sequences
    int64_t rows;        // rows of one head that one task computes, at most
    int64_t run;         // rows of several heads that one thread computes at once, at most

    float scale, max_bias, softcap;

    explicit attn(const ggml_tensor * dst) :
        dst(dst), q(dst->src[0]), k(dst->src[1]), v(dst->src[2]), mask(dst->src[3]),
        order(dst->src[5] && dst->src[5]->type == GGML_TYPE_I32 && dst->src[5]->ne[0] == k->ne[1] ? dst->src[5] : nullptr),
        ordered(order && mask && dst->src[6] && dst->src[6]->type == mask->type && ggml_are_same_shape(mask, dst->src[6]) ? dst->src[6] : nullptr),
        sinks(dst->src[4]),
        DK(k->ne[0]), DV(v->ne[0]), DKp(GGML_PAD(DK, LANES)), DVp(GGML_PAD(DV, LANES)),
        n_kv(k->ne[1]), n_kvp(GGML_PAD(n_kv, TILE)), s_stride(n_kvp + 16), group(q->ne[2]/k->ne[2]), n_rows(group*q->ne[1]) {
        memcpy(&scale,    (const float *) dst->op_params + 0, sizeof(float));
        memcpy(&max_bias, (const float *) dst->op_params + 1, sizeof(float));
        memcpy(&softcap,  (const float *) dst->op_params + 2, sizeof(float));
        if (softcap != 0.0f) {
            scale /= softcap;
        }
        n_heads = k->ne[2]*q->ne[3];
        const int64_t fit = std::max<int64_t>(1, MAX_SCORES/n_kvp);
        rows    = std::min<int64_t>({ n_rows, MAX_ROWS, fit });
        run     = std::min<int64_t>({ n_rows*k->ne[2], MAX_RUN, fit });
    }

    int64_t tasks_per_head() const { return (n_rows + rows - 1)/rows; }
    int64_t most() const { return std::max(rows, run); }

    // per thread, floats: queries, scores, sums, cells, cells transposed, who sees which tile, mask
    int64_t work() const {
        return GGML_PAD(most()*(DKp + s_stride + DVp + (order && !ordered ? n_kvp/2 : 0)) + TILE*(std::max(DKp, DVp) + DKp) + 2*GGML_PAD(n_kvp/TILE, 16), 16);
    }
};

// K and V as the kernels read them
struct kv_f32 {
    using value = float;
    static inline f32v load(const value * p) { return load_f32(p); }
};
struct kv_f16 {
    using value = ggml_fp16_t;
    static inline f32v load(const value * p) { return load_f16(p); }
};
struct kv_bf16 {
    using value = ggml_bf16_t;
    static inline f32v load(const value * p) { return load_bf16(p); }
};

// a head's part of a cell, which lies far from that of the next cell
static inline void prefetch_row(const char * src, int64_t size) {
    for (int64_t i = 0; i < size; i += 64) {
        prefetch(src + i);
    }
}

// the cells t0 ... t0 + TILE - 1 of a head, converted: x[cell][Dp], with zeros past n_kv and past the head's size
static void convert_tile(const ggml_tensor * t, const char * base, const int32_t * order, int64_t t0, int64_t n_kv, int64_t Dp, float * x) {
    const int64_t D    = t->ne[0];
    const int64_t size = ggml_row_size(t->type, D);
    for (int64_t c = 0; c < TILE; c++, x += Dp) {
        if (t0 + c >= n_kv) {
            std::fill(x, x + Dp, 0.0f);
            continue;
        }
        const char * src = base + (order ? order[t0 + c] : t0 + c)*t->nb[1];
        prefetch_row(order ? base + order[std::min(t0 + c + TILE, n_kv - 1)]*t->nb[1] : src + TILE*t->nb[1], size);
        if (D == Dp && t->type == GGML_TYPE_F16) {
            for (int64_t d = 0; d < D; d += LANES) {
                store(x + d, load_f16((const ggml_fp16_t *) src + d));
            }
            continue;
        }
        switch (t->type) {
            case GGML_TYPE_F32:  memcpy(x, src, D*sizeof(float)); break;
            case GGML_TYPE_F16:  ggml_cpu_fp16_to_fp32((const ggml_fp16_t *) src, x, D); break;
            case GGML_TYPE_BF16: ggml_cpu_bf16_to_fp32((const ggml_bf16_t *) src, x, D); break;
            default:             ggml_get_type_traits(t->type)->to_float(src, x, D); break;
        }
        std::fill(x + D, x + Dp, 0.0f);
    }
}

// x[cell][Dp] to xt[Dp][cell]
template <typename T> static void transpose_tile(const typename T::value * x, int64_t x_stride, int64_t Dp, float * xt) {
    for (int64_t d = 0; d < Dp; d += LANES) {
        for (int c = 0; c < TILE; c += LANES) {
            f32v v[LANES];
            for (int i = 0; i < LANES; i++) {
                v[i] = T::load(x + (c + i)*x_stride + d);
            }
            transpose(v);
            for (int i = 0; i < LANES; i++) {
                store(xt + (d + i)*TILE + c, v[i]);
            }
        }
    }
}

// The scores of R queries against the cells of a tile: s[r][cell] = q[r] . k[cell]. Two ways to the same bits: the
// products of a query and a cell are summed up in LANES phases (phase p: the d with d % LANES == p), then the phases.

// phases in the lanes; for few queries
template <typename T, int R> static void scores(const float * q, int64_t Dp, const typename T::value * k, int64_t k_stride, float * s, int64_t s_stride) {
    constexpr int C = R == 3 ? LANES/4 : LANES/R;
    for (int c0 = 0; c0 < TILE; c0 += C) {
        f32v acc[LANES];
        for (int i = 0; i < LANES; i++) {
            acc[i] = zero_f32();
        }
        for (int64_t d = 0; d < Dp; d += LANES) {
#pragma GCC unroll 16
            for (int c = 0; c < C; c++) {
                const f32v kv = T::load(k + (c0 + c)*k_stride + d);
#pragma GCC unroll 16
                for (int r = 0; r < R; r++) {
                    acc[r*C + c] = fma(load_f32(q + r*Dp + d), kv, acc[r*C + c]);
                }
            }
        }
        float t[LANES];
        store(t, sum_lanes(acc));
        for (int r = 0; r < R; r++) {
            memcpy(s + r*s_stride + c0, t + r*C, C*sizeof(float));
        }
    }
}

// cells in the lanes; for many queries
template <int R> static void scores_transposed(const float * q, int64_t Dp, const float * kt, float * s, int64_t s_stride) {
    for (int c = 0; c < TILE; c += LANES) {
        f32v fours[R][LANES/4];
        for (int f = 0; f < LANES/4; f++) {
            f32v acc[R][4];
            for (int r = 0; r < R; r++) {
                acc[r][0] = acc[r][1] = acc[r][2] = acc[r][3] = zero_f32();
            }
            for (int64_t d = 4*f; d < Dp; d += LANES) {
#pragma GCC unroll 4
                for (int p = 0; p < 4; p++) {
                    const f32v kv = load_f32(kt + (d + p)*TILE + c);
#pragma GCC unroll 8
                    for (int r = 0; r < R; r++) {
                        acc[r][p] = fma(set1(q[r*Dp + d + p]), kv, acc[r][p]);
                    }
                }
            }
            for (int r = 0; r < R; r++) {
                fours[r][f] = sum_four(acc[r][0], acc[r][1], acc[r][2], acc[r][3]);
            }
        }
        for (int r = 0; r < R; r++) {
            store(s + r*s_stride + c, sum_fours(fours[r]));
        }
    }
}

// o[r] += sum over the cells of a tile of p[r][cell] * v[cell], for R queries and V vectors of the head; SUM: sum[r] += p[r][cell] as well
template <typename T, int R, int V, bool SUM> static void weighted_sum(const float * p, int64_t p_stride, const typename T::value * v, int64_t v_stride, float * o, int64_t o_stride, float * sum) {
    f32v acc[R][V], t[R];
    for (int r = 0; r < R; r++) {
        t[r] = set1(SUM ? sum[r] : 0.0f);
        for (int i = 0; i < V; i++) {
            acc[r][i] = load_f32(o + r*o_stride + i*LANES);
        }
    }
    for (int c = 0; c < TILE; c++) {
        f32v vv[V];
#pragma GCC unroll 8
        for (int i = 0; i < V; i++) {
            vv[i] = held(T::load(v + c*v_stride + i*LANES));
        }
#pragma GCC unroll 8
        for (int r = 0; r < R; r++) {
            const f32v w = set1(p[r*p_stride + c]);
            if (SUM) {
                t[r] = add(t[r], w);
            }
#pragma GCC unroll 8
            for (int i = 0; i < V; i++) {
                acc[r][i] = fma(w, vv[i], acc[r][i]);
            }
        }
    }
    for (int r = 0; r < R; r++) {
        for (int i = 0; i < V; i++) {
            store(o + r*o_stride + i*LANES, acc[r][i]);
        }
        if (SUM) {
            float lanes[LANES]; // all the same
            store(lanes, t[r]);
            sum[r] = lanes[0];
        }
    }
}

template <typename T, int R> static void weighted_sums(const float * p, int64_t p_stride, const typename T::value * v, int64_t v_stride, float * o, int64_t Dp, float * sum) {
    int64_t d = 0;
    if (Dp >= SUM_VECS*LANES) {
        weighted_sum<T, R, SUM_VECS, true>(p, p_stride, v, v_stride, o, Dp, sum);
        d = SUM_VECS*LANES;
    } else {
        weighted_sum<T, R, 1, true>(p, p_stride, v, v_stride, o, Dp, sum);
        d = LANES;
    }
    for (; d + SUM_VECS*LANES <= Dp; d += SUM_VECS*LANES) {
        weighted_sum<T, R, SUM_VECS, false>(p, p_stride, v + d, v_stride, o + d, Dp, nullptr);
    }
    for (; d < Dp; d += LANES) {
        weighted_sum<T, R, 1, false>(p, p_stride, v + d, v_stride, o + d, Dp, nullptr);
    }
}

// f(r, std::integral_constant<int, R>) for the rows from r on, n of them, in groups of R = 4 and what is left
template <typename F> static inline void for_rows(int r, int n, F f) {
    const int end = r + n;
    for (; r + 4 <= end; r += 4) {
        f(r, std::integral_constant<int, 4>());
    }
    switch (end - r) {
        case 3: f(r, std::integral_constant<int, 3>()); break;
        case 2: f(r, std::integral_constant<int, 2>()); break;
        case 1: f(r, std::integral_constant<int, 1>()); break;
        default: break;
    }
}

// whether the cells of a tile lie one behind another
static inline bool together(const int32_t * order) {
    int32_t apart = 0;
    for (int c = 0; c < TILE; c++) {
        apart |= order[c] - order[0] - c;
    }
    return apart == 0;
}

// where the kernels read the tile at t from: the cache itself, or its conversion
template <typename F> static inline void with_tile(const attn & a, const ggml_tensor * t, const char * base, const int32_t * order, int64_t t0, int64_t Dp, bool direct, float * x, F f) {
    if (direct && t0 + TILE <= a.n_kv && t->ne[0] == Dp && (!order || together(order + t0))) {
        const char *  at     = base + (order ? order[t0] : t0)*t->nb[1];
        const int64_t value  = ggml_type_size(t->type);
        const int64_t stride = t->nb[1]/value;
        for (int c = TILE; c < 2*TILE; c++) {
            prefetch_row(at + c*t->nb[1], t->ne[0]*value);
        }
        switch (t->type) {
            case GGML_TYPE_F32:  f(kv_f32(),  (const float *) at,       stride); return;
            case GGML_TYPE_F16:  f(kv_f16(),  (const ggml_fp16_t *) at, stride); return;
            case GGML_TYPE_BF16: f(kv_bf16(), (const ggml_bf16_t *) at, stride); return;
            default: break;
        }
    }
    convert_tile(t, base, order, t0, a.n_kv, Dp, x);
    f(kv_f32(), x, Dp);
}

// a query of a head: what it is of the tensors, and which cells it may see
struct row {
    uint64_t            token; // bit of the query among those of the task
    const ggml_fp16_t * mask;  // [n_kv], or NULL
    int64_t             begin; // first and last + 1 visible cell, rounded to tiles; equal if there is none
    int64_t             end;
    float               slope;
    float               sink;
    float *             out;
};

// rows of one head
struct part {
    int64_t head;
    int     r, n;
};

// finds the cells that a row sees; seen_by[tile] |= its bit for the tiles that hold some
static void visible_tiles(row & r, int64_t n_kv, int64_t n_kvp, uint64_t * seen_by) {
    const ggml_fp16_t hidden = GGML_CPU_FP32_TO_FP16(-INFINITY);
    r.begin = n_kvp;
    r.end   = 0;
    for (int64_t t = 0; t < n_kvp; t += TILE) {
        unsigned visible = r.mask == nullptr;
        if (r.mask && t + TILE <= n_kv) {
            for (int c = 0; c < TILE; c++) {
                visible |= r.mask[t + c] ^ hidden;
            }
        } else if (r.mask) {
            for (int64_t c = t; c < n_kv; c++) {
                visible |= r.mask[c] ^ hidden;
            }
        }
        if (visible != 0) {
            seen_by[t/TILE] |= r.token;
            r.begin = std::min(r.begin, t);
            r.end   = t + TILE;
        }
    }
    r.begin = std::min(r.begin, r.end);
}

// n rows of sequence i3 from row0 on, counted head after head of K and V, each of which has n_rows; at most MAX_RUN, of at most MAX_TOKENS
// queries. All heads use a tile of cells before the next one: their parts of a cell lie next to each other, and going over all cells for one
// head after the other would read what lies between from memory as often.
static void attn_task(const attn & a, int64_t i3, int64_t row0, int n, float * work) {
    float * q = work;
    float * s = q + a.most()*a.DKp;
    float * o = s + a.most()*a.s_stride;
    float * x = o + a.most()*a.DVp;
    float * xt = x + TILE*std::max(a.DKp, a.DVp);
    auto *  seen_by = (uint64_t *) (xt + TILE*a.DKp); // [n_kvp/TILE], a bit for each query that sees a cell of that tile
    auto *  masks = (ggml_fp16_t *) (seen_by + GGML_PAD(a.n_kvp/TILE, 16)); // [rows][n_kvp], in the order of the cells, if it does not lie ready

    const int32_t * order = a.order ? (const int32_t *) a.order->data + i3%a.order->ne[1]*a.n_kv : nullptr;
    if (order && order[0] < 0) {
        order = nullptr;
    }

    const ggml_tensor * mask = order && a.ordered ? a.ordered : a.mask;

    uint32_t n_head_log2 = 0;
    float    m0 = 1.0f, m1 = 1.0f;
    if (a.max_bias > 0.0f) {
        n_head_log2 = 1u << (uint32_t) floor(log2((uint32_t) a.q->ne[2]));
        m0 = powf(2.0f, -(a.max_bias       )/n_head_log2);
        m1 = powf(2.0f, -(a.max_bias / 2.0f)/n_head_log2);
    }

    std::fill(seen_by, seen_by + a.n_kvp/TILE, 0);

    // the first query of all, since the rows of several heads begin anew with each
    const int64_t first = row0/a.n_rows == (row0 + n - 1)/a.n_rows ? row0%a.n_rows/a.group : 0;

    part    parts[MAX_RUN];
    int     n_parts = 0;
    row     rows[MAX_RUN];
    int64_t begin = a.n_kvp, end = 0;
    int64_t kv_head = row0/a.n_rows, i1 = row0%a.n_rows/a.group, in_group = row0%a.group;
    for (int r = 0; r < n; r++, in_group++) {
        if (in_group == a.group) {
            in_group = 0;
            i1++;
        }
        if (i1*a.group == a.n_rows) {
            i1 = 0;
            kv_head++;
        }
        if (r == 0 || (i1 == 0 && in_group == 0)) {
            parts[n_parts++] = { kv_head, r, 0 };
        }
        parts[n_parts - 1].n++;
        const int64_t h = kv_head*a.group + in_group;

        rows[r].token = (uint64_t) 1 << (i1 - first);

        rows[r].mask = mask ? (const ggml_fp16_t *) ((const char *) mask->data + i1*mask->nb[1] +
                                                     h%mask->ne[2]*mask->nb[2] + i3%mask->ne[3]*mask->nb[3]) : nullptr;
        rows[r].slope = a.max_bias <= 0.0f ? 1.0f : h < n_head_log2 ? powf(m0, h + 1) : powf(m1, 2*(h - n_head_log2) + 1);
        rows[r].sink  = a.sinks ? ((const float *) a.sinks->data)[h] : -INFINITY;
        rows[r].out   = (float *) ((char *) a.dst->data + (i3*a.dst->ne[2]*a.dst->ne[1] + h + i1*a.dst->ne[1])*a.dst->nb[1]);
        // the row before has the same query, or the same query's row of the head before
        const int  other     = r > 0 && rows[r - 1].token == rows[r].token ? r - 1 : r - (int) a.n_rows;
        const bool same_mask = other >= 0 && mask && mask->ne[2] == 1;
        if (order && !a.ordered && same_mask) {
            rows[r].mask = rows[other].mask;
        } else if (order && !a.ordered) {
            ggml_fp16_t * in_order = masks + r*a.n_kvp;
            for (int64_t c = 0; c < a.n_kv; c++) {
                in_order[c] = rows[r].mask[order[c]];
            }
            rows[r].mask = in_order;
        }
        if (same_mask) {
            rows[r].begin = rows[other].begin;
            rows[r].end   = rows[other].end;
        } else {
            visible_tiles(rows[r], a.n_kv, a.n_kvp, seen_by);
        }
        begin = std::min(begin, rows[r].begin);
        end   = std::max(end,   rows[r].end);

        const float * src = (const float *) ((const char *) a.q->data + i1*a.q->nb[1] + h*a.q->nb[2] + i3*a.q->nb[3]);
        memcpy(q + r*a.DKp, src, a.DK*sizeof(float));
        std::fill(q + r*a.DKp + a.DK, q + (r + 1)*a.DKp, 0.0f);
    }
    std::fill(o, o + n*a.DVp, 0.0f);

    const char * k = (const char *) a.k->data + i3/(a.q->ne[3]/a.k->ne[3])*a.k->nb[3];
    const char * v = (const char *) a.v->data + i3/(a.q->ne[3]/a.v->ne[3])*a.v->nb[3];

    // whether any of m rows of a head from r on sees a cell of the tile at t. What is hidden adds zero: it may be left out
    auto seen = [&](int r, int m, int64_t t) {
        return (seen_by[t/TILE] & ((rows[r + m - 1].token << 1) - rows[r].token)) != 0;
    };

    auto few_see = [&](int m, int64_t t) { return m <= MAX_FEW || __builtin_popcountll(seen_by[t/TILE])*a.group <= MAX_FEW; };

    for (int64_t t = begin; t < end; t += TILE) {
        if (seen_by[t/TILE] == 0) {
            continue;
        }
        for (int p = 0; p < n_parts; p++) {
            const part & h   = parts[p];
            const bool   few = few_see(h.n, t);
            with_tile(a, a.k, k + h.head*a.k->nb[2], order, t, a.DKp, true, x, [&](auto type, auto * kt, int64_t stride) {
                if (!few) {
                    transpose_tile<decltype(type)>(kt, stride, a.DKp, xt);
                }
                for_rows(h.r, h.n, [&](int r, auto R) {
                    if (!seen(r, R, t)) {
                        return;
                    }
                    if (few) {
                        scores<decltype(type), R>(q + r*a.DKp, a.DKp, kt, stride, s + r*a.s_stride + t, a.s_stride);
                    } else {
                        scores_transposed<R>(q + r*a.DKp, a.DKp, xt, s + r*a.s_stride + t, a.s_stride);
                    }
                });
            });
        }
    }

    float sum[MAX_RUN];
    for (int r = 0; r < n; r++) {
        float * sr = s + r*a.s_stride;
        const row & w = rows[r];

        f32v m = set1(w.sink);
        for (int64_t c = w.begin; c < w.end; c += LANES) {
            if (!seen(r, 1, c)) {
                continue;
            }
            f32v sv = mul(load_f32(sr + c), set1(a.scale));
            if (a.softcap != 0.0f) {
                float t[LANES];
                store(t, sv);
                for (int i = 0; i < LANES; i++) {
                    t[i] = a.softcap*tanhf(t[i]);
                }
                sv = load_f32(t);
            }
            if (w.mask != nullptr && c + LANES <= a.n_kv) {
                sv = fma(set1(w.slope), load_f16(w.mask + c), sv);
            } else {
                float t[LANES];
                store(t, sv);
                for (int i = 0; i < LANES; i++) {
                    const float mv = c + i >= a.n_kv ? -INFINITY : w.mask != nullptr ? GGML_CPU_FP16_TO_FP32(w.mask[c + i]) : 0.0f;
                    t[i] = fmaf(w.slope, mv, t[i]);
                }
                sv = load_f32(t);
            }
            store(sr + c, sv);
            m = max(m, sv);
        }
        float lanes[LANES], M = -INFINITY;
        store(lanes, m);
        for (int i = 0; i < LANES; i++) {
            M = std::max(M, lanes[i]);
        }
        // what a row that shares its kernel with others does not see must not be added as it was left there; nothing visible: zeros
        for (int64_t t = begin; t < end; t += TILE) {
            if (M == -INFINITY || !seen(r, 1, t) || t < w.begin || t >= w.end) {
                std::fill(sr + t, sr + t + TILE, 0.0f);
                continue;
            }
            for (int64_t c = t; c < t + TILE; c += LANES) {
                store(sr + c, exp_f32(add(load_f32(sr + c), set1(-M))));
            }
        }
        sum[r] = a.sinks && M != -INFINITY ? expf(w.sink - M) : 0.0f;
    }

    for (int64_t t = begin; t < end; t += TILE) {
        if (seen_by[t/TILE] == 0) {
            continue;
        }
        for (int p = 0; p < n_parts; p++) {
            const part & h = parts[p];
            with_tile(a, a.v, v + h.head*a.v->nb[2], order, t, a.DVp, few_see(h.n, t), x, [&](auto type, auto * vt, int64_t stride) {
                for_rows(h.r, h.n, [&](int r, auto R) {
                    if (seen(r, R, t)) {
                        weighted_sums<decltype(type), R>(s + r*a.s_stride + t, a.s_stride, vt, stride, o + r*a.DVp, a.DVp, sum + r);
                    }
                });
            });
        }
    }

    for (int r = 0; r < n; r++) {
        const float inv = sum[r] == 0.0f ? 0.0f : 1.0f/sum[r];
        for (int64_t d = 0; d < a.DV; d++) {
            rows[r].out[d] = o[r*a.DVp + d]*inv;
        }
    }
}

struct flash_attn_tensor_traits : tensor_traits {
    bool work_size(int n_threads, const ggml_tensor * op, size_t & size) override {
        size = n_threads*attn(op).work()*sizeof(float) + ALIGN;
        return true;
    }

    bool compute_forward(ggml_compute_params * params, ggml_tensor * op) override {
        const attn a(op);
        float * work = (float *) GGML_PAD((uintptr_t) params->wdata, ALIGN) + params->ith*a.work();

        // few: shares are fixed, which costs less than waiting for the others to agree on them; a share is a run of rows, head
        // after head, so that few heads are converted by more than one thread
        const int64_t total = a.n_heads*a.n_rows;
        if (total <= 8*MAX_ROWS*params->nth && a.q->ne[1] <= MAX_TOKENS) {
            const int64_t per_stream = a.k->ne[2]*a.n_rows;
            const int64_t end        = total*(params->ith + 1)/params->nth;
            for (int64_t row = total*params->ith/params->nth; row < end; ) {
                const int64_t i3 = row/per_stream, row0 = row%per_stream;
                const int     n  = (int) std::min({ a.run, per_stream - row0, end - row });
                attn_task(a, i3, row0, n, work);
                row += n;
            }
            return true;
        }
        if (params->ith == 0) {
            ggml_threadpool_chunk_set(params->threadpool, params->nth);
        }
        ggml_barrier(params->threadpool);
        const int64_t per_head = a.tasks_per_head();
        for (int64_t task = params->ith; task < a.n_heads*per_head; task = ggml_threadpool_chunk_add(params->threadpool, 1)) {
            const int64_t row0 = task%per_head*a.rows;
            const int64_t head = task/per_head;
            attn_task(a, head/a.k->ne[2], head%a.k->ne[2]*a.n_rows + row0, (int) std::min(a.rows, a.n_rows - row0), work);
        }
        return true;
    }
};

tensor_traits * flash_attn_traits(const ggml_tensor * op) {
    static flash_attn_tensor_traits traits;

    auto readable = [](const ggml_tensor * t) {
        return t->type == GGML_TYPE_F32 || t->type == GGML_TYPE_F16 || t->type == GGML_TYPE_BF16 || ggml_get_type_traits(t->type)->to_float != nullptr;
    };
    const ggml_tensor * q = op->src[0];
    const ggml_tensor * k = op->src[1];
    const ggml_tensor * v = op->src[2];
    return q->type == GGML_TYPE_F32 && k->ne[2] == v->ne[2] && readable(k) && readable(v) ? &traits : nullptr;
}

} // namespace ggml::cpu::invariant

#else

namespace ggml::cpu::invariant {

tensor_traits * flash_attn_traits(const ggml_tensor *) {
    return nullptr;
}

} // namespace ggml::cpu::invariant

#endif // GGML_INVARIANT
