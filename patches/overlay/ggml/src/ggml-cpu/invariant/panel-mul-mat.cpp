// Matrix multiplication with weights in panels.

#include "panel.h"

#include "invariant.h"

#include "ggml-cpu-impl.h"
#include "ggml-cpu.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#if defined(__linux__)
#    include <sys/mman.h>
#    include <sys/syscall.h>
#    include <unistd.h>
#endif

#ifdef GGML_INVARIANT

namespace ggml::cpu::invariant {

// what the two kinds of kernels need to be told apart in the code below
static constexpr int MAX_COLS_Q8    = 16; // 8 vectors of weights, 16 sums, and a few
static constexpr int MAX_COLS_FLOAT = 12; // 2 vectors of weights, 24 sums, and a few

// see converts_alone(): the largest number of columns, and of bytes of a matrix
static constexpr int    MAX_ALONE_COLS = 16;
static constexpr size_t MAX_ALONE_SIZE = 2 << 20;

#ifdef GGML_INVARIANT_AMX
// Linux gives a process the registers of the matrix unit when it asks for them
static bool has_tiles() {
    static const bool has = [] {
        constexpr int REQ_XCOMP_PERM = 0x1023, XTILEDATA = 18; // Linux: Documentation/arch/x86/xstate.rst
        return syscall(SYS_arch_prctl, REQ_XCOMP_PERM, XTILEDATA) == 0;
    }();
    return has;
}
#else
static bool has_tiles() { return false; }
struct tile_scope {
    tile_scope(int, int) {}
    void set(int, int) {}
};
#endif

using gemm_t = void (*)(int64_t n_blocks, const uint8_t * w, const void * x, float * const * y, int rows);

// TILE_K: what a tile multiplies at once, in 4 bytes; MIN_COLS_TILES: the fewest columns for which the matrix unit is used
template <typename W, typename = void> struct kernels {
    static constexpr int UNIT = W::BLOCK, UNITS = 1, MAX_COLS = MAX_COLS_FLOAT, TILE_K = 0, MIN_COLS_TILES = MAX_COLS + 1;
    template <int N> static constexpr gemm_t gemm       = panel_float<W, N>;
    template <int N> static constexpr gemm_t gemm_tiles = nullptr;
};
template <typename W> struct kernels<W, std::enable_if_t<std::is_same_v<typename W::act, q8_act>>> {
    static constexpr int UNIT = 32, UNITS = W::SUBS, MAX_COLS = MAX_COLS_Q8, TILE_K = 8;
    template <int N> static constexpr gemm_t gemm = panel_q8<W, N>;
#ifdef GGML_INVARIANT_AMX
    static constexpr int MIN_COLS_TILES = W::MIN_COLS_TILES;
    template <int N> static constexpr gemm_t tiles() {
        if constexpr (N >= MIN_COLS_TILES) {
            return panel_q8_tiles<W, N>;
        } else {
            return nullptr;
        }
    }
    template <int N> static constexpr gemm_t gemm_tiles = tiles<N>();
#else
    static constexpr int MIN_COLS_TILES = MAX_COLS + 1;
    template <int N> static constexpr gemm_t gemm_tiles = nullptr;
#endif
};
#ifdef GGML_INVARIANT_AMX_BF16
template <> struct kernels<w_bf16_tiles> {
    static constexpr int UNIT = 32, UNITS = 1, MAX_COLS = 16, TILE_K = 16, MIN_COLS_TILES = 1;
    template <int N> static constexpr gemm_t gemm       = nullptr;
    template <int N> static constexpr gemm_t gemm_tiles = panel_bf16_tiles<N>;
};
#endif

template <typename W, int... N> static constexpr std::array<gemm_t, sizeof...(N)> gemm_table(std::integer_sequence<int, N...>) {
    return { kernels<W>::template gemm<N + 1>... };
}
template <typename W, int... N> static constexpr std::array<gemm_t, sizeof...(N)> gemm_tiles_table(std::integer_sequence<int, N...>) {
    return { kernels<W>::template gemm_tiles<N + 1>... };
}

struct panel_tensor_traits : tensor_traits {
    virtual size_t alloc_size(const ggml_tensor * t) const                        = 0;
    virtual void   pack(const ggml_tensor * t, uint8_t * dst, const void * src) const = 0;
    // products of several matrices with the same activations
    virtual void   mul_mats(const ggml_compute_params * params, ggml_tensor * const * dsts, int n_dsts) const = 0;
};

struct column {
    const float * x;
    float *       y;
};

template <typename W> struct panel_tensor_traits_for : panel_tensor_traits {
    using act = typename W::act;
    using K   = kernels<W>;

    static constexpr int64_t ROWS     = W::ROWS;
    static constexpr int     MAX_COLS = K::MAX_COLS;

    static constexpr std::array<gemm_t, MAX_COLS> GEMM       = gemm_table<W>(std::make_integer_sequence<int, MAX_COLS>());
    static constexpr std::array<gemm_t, MAX_COLS> GEMM_TILES = gemm_tiles_table<W>(std::make_integer_sequence<int, MAX_COLS>());

    // The kernels of one operation in one thread, whose tiles are then what they were.
    class gemms {
        std::optional<tile_scope> tiles;
        int64_t                   n_tiles = 0; // columns that they stand ready for
    public:
        gemm_t operator()(int64_t n) {
            if (n < K::MIN_COLS_TILES || !has_tiles()) {
                return GEMM[n - 1];
            }
            if (n != n_tiles) {
                if (tiles) {
                    tiles->set(K::TILE_K, (int) n);
                } else {
                    tiles.emplace(K::TILE_K, (int) n);
                }
                n_tiles = n;
            }
            return GEMM_TILES[n - 1];
        }
    };

    static int64_t n_panels(const ggml_tensor * t) { return (t->ne[1] + ROWS - 1)/ROWS; }
    static int64_t n_blocks(const ggml_tensor * t) { return t->ne[0]/W::BLOCK; }
    static int64_t n_units(const ggml_tensor * t) { return (t->ne[0] + K::UNIT - 1)/K::UNIT; }
    static size_t  panel_size(const ggml_tensor * t) { return n_blocks(t)*W::BYTES; }

    size_t alloc_size(const ggml_tensor * t) const override { return panel_size(t)*n_panels(t)*t->ne[2]*t->ne[3]; }

    static void pack_panel(const ggml_tensor * t, uint8_t * dst, const uint8_t * src, int64_t panel) {
        const int64_t per_matrix = n_panels(t);
        const int64_t row0       = (panel%per_matrix)*ROWS;
        const int64_t rows       = std::min(ROWS, t->ne[1] - row0);
        const size_t  row_size   = n_blocks(t)*sizeof(typename W::block);

        dst += panel*panel_size(t);
        src += (panel/per_matrix*t->ne[1] + row0)*row_size;

        if (rows < ROWS) {
            memset(dst, 0, panel_size(t));
        }
        for (int64_t ib = 0; ib < n_blocks(t); ib++) {
            for (int64_t r = 0; r < rows; r++) {
                W::pack(dst + ib*W::BYTES, r, ((const typename W::block *) (src + r*row_size))[ib]);
            }
        }
    }

    void pack(const ggml_tensor * t, uint8_t * dst, const void * src) const override {
        const int64_t n         = n_panels(t)*t->ne[2]*t->ne[3];
        const int64_t n_threads = std::clamp<int64_t>(ggml_nbytes(t)/(4 << 20), 1, std::max(1u, std::thread::hardware_concurrency()));

        std::vector<std::thread> threads;
        for (int64_t i = 0; i < n_threads; i++) {
            auto work = [=] {
                for (int64_t p = n*i/n_threads; p < n*(i + 1)/n_threads; p++) {
                    pack_panel(t, dst, (const uint8_t *) src, p);
                }
            };
            if (i + 1 < n_threads) {
                threads.emplace_back(work);
            } else {
                work();
            }
        }
        for (auto & thread : threads) {
            thread.join();
        }
    }

    // -- activations

    static int64_t tile_cols(int64_t n_cols, int64_t first) { return std::min<int64_t>(MAX_COLS, n_cols - first); }

    // units u0 ... u1 - 1 of one column of ne0 values; dst: where the column stands in the first unit of its tile, which is n wide
    static void convert(const float * x, int64_t ne0, act * dst, int64_t n, int64_t u0, int64_t u1) {
        convert_acts<W>(x + u0*K::UNIT, dst + u0*n, n, u1 - u0, ne0 - u0*K::UNIT);
    }

    // thread ith's share of all columns
    template <typename C> static void convert_all(int64_t ith, int64_t nth, int64_t ne0, int64_t n_units, int64_t n_cols, act * dst, C col_x) {
        const bool    by_col = n_cols >= 4*nth;
        for (int64_t c0 = 0; c0 < n_cols; c0 += MAX_COLS) {
            const int64_t n    = tile_cols(n_cols, c0);
            act *         tile = dst + c0*n_units;
            if constexpr (sizeof(act) == sizeof(float)) {
                if (n > 1) {
                    const int64_t u0 = n_units*ith/nth, u1 = n_units*(ith + 1)/nth;
                    const float * x[MAX_COLS];
                    for (int64_t c = 0; c < n; c++) {
                        x[c] = col_x(c0 + c) + u0*K::UNIT;
                    }
                    convert_tile<W>(x, tile + u0*n, n, u1 - u0);
                    continue;
                }
            }
            for (int64_t c = 0; c < n; c++) {
                if (!by_col) {
                    convert(col_x(c0 + c), ne0, tile + c, n, n_units*ith/nth, n_units*(ith + 1)/nth);
                } else if ((c0 + c)%nth == ith) {
                    convert(col_x(c0 + c), ne0, tile + c, n, 0, n_units);
                }
            }
        }
    }

    // -- GGML_OP_MUL_MAT

    static column mul_mat_column(const ggml_tensor * dst, int64_t c) {
        const ggml_tensor * src1 = dst->src[1];
        if (c < src1->ne[1]) { // nearly always; no division
            return { (const float *) ((const char *) src1->data + c*src1->nb[1]), (float *) ((char *) dst->data + c*dst->nb[1]) };
        }
        const int64_t i1 = c%src1->ne[1], i2 = c/src1->ne[1]%src1->ne[2], i3 = c/(src1->ne[1]*src1->ne[2]);
        return {
            (const float *) ((const char *) src1->data + i1*src1->nb[1] + i2*src1->nb[2] + i3*src1->nb[3]),
            (float *) ((char *) dst->data + i1*dst->nb[1] + i2*dst->nb[2] + i3*dst->nb[3]),
        };
    }

    // Whether every thread converts all activations for itself and takes a fixed share of the panels: for few columns
    // and a small matrix that costs less than waiting for the others.
    static bool converts_alone(const ggml_tensor * dst, int n_threads) {
        const ggml_tensor * src0 = dst->src[0];
        return n_threads > 1 && ggml_nrows(dst->src[1]) <= MAX_ALONE_COLS && n_panels(src0)*panel_size(src0) <= MAX_ALONE_SIZE;
    }

    void mul_mats(const ggml_compute_params * params, ggml_tensor * const * dsts, int n_dsts) const override {
        const ggml_tensor * src0 = dsts[0]->src[0];

        const int64_t units  = n_units(src0);
        const int64_t n_cols = ggml_nrows(dsts[0]->src[1]);
        const size_t  size   = panel_size(src0);

        const auto col_x = [&](int64_t c) { return mul_mat_column(dsts[0], c).x; };
        const bool alone = std::all_of(dsts, dsts + n_dsts, [&](const ggml_tensor * dst) { return converts_alone(dst, params->nth); });

        act * x = (act *) params->wdata;
        if (alone) {
            x += params->ith*units*n_cols;
            convert_all(0, 1, src0->ne[0], units, n_cols, x, col_x);
        } else {
            convert_all(params->ith, params->nth, src0->ne[0], units, n_cols, x, col_x);
            if (params->ith == 0) {
                ggml_threadpool_chunk_set(params->threadpool, params->nth);
            }
            ggml_barrier(params->threadpool);
        }

        // a chunk: panels that one thread takes at once, counted through all matrices
        gemms   gemm;
        int64_t chunk = params->ith;
        int64_t first = 0;
        for (int i = 0; i < n_dsts; i++) {
            const int64_t panels   = n_panels(dsts[i]->src[0]);
            const int64_t n_chunks = std::min<int64_t>(panels, params->nth*(alone || params->nth == 1 ? 1 : panels*(int64_t) size > (4 << 20) ? 16 : 4));
            if (alone && params->ith < n_chunks) {
                mul_mat_panels(dsts[i], x, gemm, panels*params->ith/n_chunks, panels*(params->ith + 1)/n_chunks);
            }
            for (; !alone && chunk < first + n_chunks; chunk = ggml_threadpool_chunk_add(params->threadpool, 1)) {
                mul_mat_panels(dsts[i], x, gemm, panels*(chunk - first)/n_chunks, panels*(chunk - first + 1)/n_chunks);
            }
            first += n_chunks;
        }
    }

    // the panels begin ... end - 1 of a matrix, all columns
    static void mul_mat_panels(ggml_tensor * dst, const act * x, gemms & gemm, int64_t begin, int64_t end) {
        const ggml_tensor * src0 = dst->src[0];

        const int64_t units  = n_units(src0);
        const int64_t blocks = n_blocks(src0);
        const int64_t n_cols = ggml_nrows(dst->src[1]);
        const size_t  size   = panel_size(src0);

        // a group: panels that stay in the second level cache while tile after tile of activations passes
        const int64_t group = n_cols <= 4*MAX_COLS ? 1 : std::max<int64_t>(1, (128 << 10)/size);

        for (int64_t p0 = begin; p0 < end; p0 += group) {
            for (int64_t c0 = 0; c0 < n_cols; c0 += MAX_COLS) {
                const int64_t n = tile_cols(n_cols, c0);
                float *       y[MAX_COLS];
                for (int64_t c = 0; c < n; c++) {
                    y[c] = mul_mat_column(dst, c0 + c).y + p0*ROWS;
                }
                const gemm_t gemm_n = gemm(n);
                for (int64_t p = p0; p < std::min(p0 + group, end); p++) {
                    const int rows = (int) std::min<int64_t>(ROWS, src0->ne[1] - p*ROWS);
                    gemm_n(blocks, (const uint8_t *) src0->data + p*size, x + c0*units, y, rows);
                    for (int64_t c = 0; c < n; c++) {
                        y[c] += ROWS;
                    }
                }
            }
        }
    }

    // -- GGML_OP_MUL_MAT_ID

    // one token's use of one expert
    struct use {
        int32_t slot;  // which of the token's experts
        int32_t token;
    };

    struct id_work {
        act *     x;     // [n_cols][units], every column a tile of its own
        int64_t * begin; // [n_expert + 1] into uses
        use *     uses;  // [n_slots*n_tokens], expert by expert
        act *     tile;  // [n_threads][units][MAX_COLS]
        size_t    size;

        id_work(const ggml_tensor * dst, int64_t n_threads, void * wdata) {
            const int64_t units    = n_units(dst->src[0]);
            const int64_t n_uses   = dst->src[2]->ne[0]*dst->src[2]->ne[1];
            char *        p        = (char *) wdata;
            auto          take     = [&](size_t bytes) { char * at = p; p += GGML_PAD(bytes, 64); return at; };
            x     = (act *)     take(ggml_nrows(dst->src[1])*units*sizeof(act));
            begin = (int64_t *) take((dst->src[0]->ne[2] + 1)*sizeof(int64_t));
            uses  = (use *)     take(n_uses*sizeof(use));
            tile  = (act *)     take(n_threads*units*MAX_COLS*sizeof(act));
            size  = p - (char *) wdata;
        }
    };

    static void mul_mat_id(const ggml_compute_params * params, ggml_tensor * dst) {
        const ggml_tensor * src0 = dst->src[0];
        const ggml_tensor * src1 = dst->src[1];
        const ggml_tensor * ids  = dst->src[2];

        const int64_t units    = n_units(src0);
        const int64_t blocks   = n_blocks(src0);
        const int64_t panels   = n_panels(src0);
        const int64_t n_expert = src0->ne[2];
        const size_t  size     = panel_size(src0);

        const id_work w(dst, params->nth, params->wdata);

        const int64_t n_cols = ggml_nrows(src1);
        for (int64_t c = 0; c < n_cols; c++) {
            const float * x = (const float *) ((const char *) src1->data + c%src1->ne[1]*src1->nb[1] + c/src1->ne[1]*src1->nb[2]);
            convert(x, src0->ne[0], w.x + c*units, 1, units*params->ith/params->nth, units*(params->ith + 1)/params->nth);
        }

        if (params->ith == 0) {
            auto expert = [&](int64_t slot, int64_t token) {
                const int32_t e = *(const int32_t *) ((const char *) ids->data + token*ids->nb[1] + slot*ids->nb[0]);
                GGML_ASSERT(e >= 0 && e < n_expert);
                return e;
            };
            std::fill(w.begin, w.begin + n_expert + 1, 0);
            for (int64_t token = 0; token < ids->ne[1]; token++) {
                for (int64_t slot = 0; slot < ids->ne[0]; slot++) {
                    w.begin[expert(slot, token) + 1]++;
                }
            }
            for (int64_t e = 0; e < n_expert; e++) {
                w.begin[e + 1] += w.begin[e];
            }
            // begin[e] moves to the end of e's uses, which is where e + 1 began
            for (int64_t token = 0; token < ids->ne[1]; token++) {
                for (int64_t slot = 0; slot < ids->ne[0]; slot++) {
                    w.uses[w.begin[expert(slot, token)]++] = { (int32_t) slot, (int32_t) token };
                }
            }
            for (int64_t e = n_expert; e > 0; e--) {
                w.begin[e] = w.begin[e - 1];
            }
            w.begin[0] = 0;
        }
        ggml_barrier(params->threadpool);

        act *       tile = w.tile + params->ith*units*MAX_COLS;
        gemms       gemm;

        for (int64_t e = 0; e < n_expert; e++) {
            // the experts' shares are shifted against each other, so that small matrices keep all threads busy
            const int64_t ith = (params->ith + e)%params->nth;
            const int64_t p0  = panels*ith/params->nth, p1 = panels*(ith + 1)/params->nth;
            for (int64_t u0 = w.begin[e]; u0 < w.begin[e + 1] && p0 < p1; u0 += MAX_COLS) {
                const int64_t n = tile_cols(w.begin[e + 1], u0);
                float *       y[MAX_COLS];
                for (int64_t c = 0; c < n; c++) {
                    const use & use = w.uses[u0 + c];
                    const act * x   = w.x + (use.token*src1->ne[1] + use.slot%src1->ne[1])*units;
                    for (int64_t u = 0; u < units; u++) {
                        tile[u*n + c] = x[u];
                    }
                    y[c] = (float *) ((char *) dst->data + use.slot*dst->nb[1] + use.token*dst->nb[2]) + p0*ROWS;
                }
                const gemm_t gemm_n = gemm(n);
                for (int64_t p = p0; p < p1; p++) {
                    const int rows = (int) std::min<int64_t>(ROWS, src0->ne[1] - p*ROWS);
                    gemm_n(blocks, (const uint8_t *) src0->data + e*panels*size + p*size, tile, y, rows);
                    for (int64_t c = 0; c < n; c++) {
                        y[c] += ROWS;
                    }
                }
            }
        }
    }

    // -- tensor_traits

    bool work_size(int n_threads, const ggml_tensor * op, size_t & size) override {
        if (op->op == GGML_OP_MUL_MAT) {
            size = ggml_nrows(op->src[1])*n_units(op->src[0])*sizeof(act)*(converts_alone(op, n_threads) ? n_threads : 1);
            return true;
        }
        if (op->op == GGML_OP_MUL_MAT_ID) {
            size = id_work(op, n_threads, nullptr).size;
            return true;
        }
        return false;
    }

    bool compute_forward(ggml_compute_params * params, ggml_tensor * op) override {
        if (op->op == GGML_OP_MUL_MAT) {
            mul_mats(params, &op, 1);
            return true;
        }
        if (op->op == GGML_OP_MUL_MAT_ID) {
            mul_mat_id(params, op);
            return true;
        }
        return false;
    }
};

static panel_tensor_traits * traits_of(ggml_type type) {
    static panel_tensor_traits_for<w_f32>    f32;
    static panel_tensor_traits_for<w_f16>    f16;
    static panel_tensor_traits_for<w_bf16>   bf16;
#ifdef GGML_INVARIANT_AMX_BF16
    static panel_tensor_traits_for<w_bf16_tiles> bf16_tiles;
#endif
    static panel_tensor_traits_for<w_q4_0>   q4_0;
    static panel_tensor_traits_for<w_q4_1>   q4_1;
    static panel_tensor_traits_for<w_q5_0>   q5_0;
    static panel_tensor_traits_for<w_q5_1>   q5_1;
    static panel_tensor_traits_for<w_q8_0>   q8_0;
    static panel_tensor_traits_for<w_q4_K>   q4_K;
    static panel_tensor_traits_for<w_q5_K>   q5_K;
    static panel_tensor_traits_for<w_q6_K>   q6_K;
    static panel_tensor_traits_for<w_iq4_nl> iq4_nl;
    switch (type) {
        case GGML_TYPE_F32:    return &f32;
        case GGML_TYPE_F16:    return &f16;
#ifdef GGML_INVARIANT_AMX_BF16
        case GGML_TYPE_BF16:   return has_tiles() ? (panel_tensor_traits *) &bf16_tiles : &bf16;
#else
        case GGML_TYPE_BF16:   return &bf16;
#endif
        case GGML_TYPE_Q4_0:   return &q4_0;
        case GGML_TYPE_Q4_1:   return &q4_1;
        case GGML_TYPE_Q5_0:   return &q5_0;
        case GGML_TYPE_Q5_1:   return &q5_1;
        case GGML_TYPE_Q8_0:   return &q8_0;
        case GGML_TYPE_Q4_K:   return &q4_K;
        case GGML_TYPE_Q5_K:   return &q5_K;
        case GGML_TYPE_Q6_K:   return &q6_K;
        case GGML_TYPE_IQ4_NL: return &iq4_nl;
        default:               return nullptr;
    }
}

// BF16 weights come in pairs along a row
static bool fits(const ggml_tensor * w) {
    return ggml_is_contiguous(w) && w->ne[0]%(w->type == GGML_TYPE_BF16 ? 2 : 1) == 0;
}

// ---- the buffer type

static enum ggml_status init_tensor(ggml_backend_buffer_t, ggml_tensor * tensor) {
    tensor->extra = traits_of(tensor->type);
    return GGML_STATUS_SUCCESS;
}

static void set_tensor(ggml_backend_buffer_t, ggml_tensor * tensor, const void * data, size_t offset, size_t size) {
    GGML_ASSERT(offset == 0 && size == ggml_nbytes(tensor));
    const auto * traits = (const panel_tensor_traits *) tensor->extra;
    GGML_ASSERT(traits != nullptr && "weights of this type have no panels");
    traits->pack(tensor, (uint8_t *) tensor->data, data);
}

static const char * get_name(ggml_backend_buffer_type_t) {
    return "CPU_PANEL";
}

// weights are read once a step, all of them: with pages of 4 KiB, every page costs a miss of the TLB
static void advise_huge_pages(void * base, size_t size) {
#if defined(__linux__)
    const uintptr_t page = 2 << 20, begin = ((uintptr_t) base + page - 1)/page*page, end = ((uintptr_t) base + size)/page*page;
    if (begin < end) {
        madvise((void *) begin, end - begin, MADV_HUGEPAGE);
    }
#else
    GGML_UNUSED(base);
    GGML_UNUSED(size);
#endif
}

static ggml_backend_buffer_t alloc_buffer(ggml_backend_buffer_type_t buft, size_t size) {
    ggml_backend_buffer_t buffer = ggml_backend_buft_alloc_buffer(ggml_backend_cpu_buffer_type(), size);
    if (buffer == nullptr) {
        return nullptr;
    }
    advise_huge_pages(ggml_backend_buffer_get_base(buffer), size);

    buffer->buft              = buft;
    buffer->iface.init_tensor = init_tensor;
    buffer->iface.set_tensor  = set_tensor;
    buffer->iface.get_tensor  = nullptr;
    buffer->iface.cpy_tensor  = nullptr;
    return buffer;
}

static size_t get_alignment(ggml_backend_buffer_type_t) {
    return 64;
}

static size_t get_alloc_size(ggml_backend_buffer_type_t, const ggml_tensor * tensor) {
    const auto * traits = traits_of(tensor->type);
    return traits != nullptr ? traits->alloc_size(tensor) : ggml_nbytes(tensor);
}

struct panel_buffer_type : extra_buffer_type {
    bool supports_op(ggml_backend_dev_t, const ggml_tensor * op) override {
        const ggml_tensor * w = op->src[0];
        if (!ggml_cpu_batch_invariant() || (op->op != GGML_OP_MUL_MAT && op->op != GGML_OP_MUL_MAT_ID)) {
            return false;
        }
        if (w->buffer == nullptr || w->buffer->buft != ggml_backend_cpu_panel_buffer_type() || traits_of(w->type) == nullptr || !fits(w)) {
            return false;
        }
        if (op->src[1]->buffer && !ggml_backend_buft_is_host(op->src[1]->buffer->buft)) {
            return false;
        }
        return op->src[1]->type == GGML_TYPE_F32 && ggml_n_dims(w) == (op->op == GGML_OP_MUL_MAT ? 2 : 3);
    }

    tensor_traits * get_tensor_traits(const ggml_tensor * op) override {
        if (op->op == GGML_OP_MUL_MAT || op->op == GGML_OP_MUL_MAT_ID) {
            const ggml_tensor * w = op->src[0];
            if (w->buffer && w->buffer->buft == ggml_backend_cpu_panel_buffer_type()) {
                return (tensor_traits *) w->extra;
            }
            return ggml_cpu_batch_invariant() ? column_traits(op) : nullptr;
        }
        if (op->op == GGML_OP_FLASH_ATTN_EXT && ggml_cpu_batch_invariant()) {
            return flash_attn_traits(op);
        }
        return nullptr;
    }
};

// whether op multiplies weights in panels
static bool in_panels(const ggml_tensor * op) {
    const ggml_tensor * w = op->src[0];
    return op->op == GGML_OP_MUL_MAT && w->buffer && w->buffer->buft == ggml_backend_cpu_panel_buffer_type();
}

} // namespace ggml::cpu::invariant

int ggml_cpu_invariant_mul_mats(const struct ggml_compute_params * params, const struct ggml_cgraph * cgraph, int node_n) {
    using namespace ggml::cpu::invariant;
    constexpr int MOST = 4;

    ggml_tensor * first = cgraph->nodes[node_n];
    if (!in_panels(first)) {
        return 0;
    }
    ggml_tensor * dsts[MOST] = { first };
    int           n          = 1;
    int           last       = node_n;
    for (int i = node_n + 1; i < cgraph->n_nodes && n < MOST; i++) {
        ggml_tensor * op = cgraph->nodes[i];
        if (ggml_op_is_empty(op->op)) {
            continue;
        }
        if (!in_panels(op) || op->src[1] != first->src[1] || op->src[0]->extra != first->src[0]->extra || (op->flags & GGML_TENSOR_FLAG_COMPUTE) == 0) {
            break;
        }
        dsts[n++] = op;
        last      = i;
    }
    if (n > 1) {
        ((const panel_tensor_traits *) first->src[0]->extra)->mul_mats(params, dsts, n);
    }
    return last - node_n;
}

ggml_backend_buffer_type_t ggml_backend_cpu_panel_buffer_type(void) {
    using namespace ggml::cpu::invariant;
    static ggml_backend_buffer_type buft = {
        /* .iface    = */ {
                           /* .get_name         = */ get_name,
                           /* .alloc_buffer     = */ alloc_buffer,
                           /* .get_alignment    = */ get_alignment,
                           /* .get_max_size     = */ nullptr,
                           /* .get_alloc_size   = */ get_alloc_size,
                           /* .is_host          = */ nullptr,
                           },
        /* .device   = */ ggml_backend_reg_dev_get(ggml_backend_cpu_reg(), 0),
        /* .context  = */ new panel_buffer_type(),
    };
    return &buft;
}

#else

int ggml_cpu_invariant_mul_mats(const struct ggml_compute_params *, const struct ggml_cgraph *, int) {
    return 0;
}

ggml_backend_buffer_type_t ggml_backend_cpu_panel_buffer_type(void) {
    return nullptr;
}

#endif // GGML_INVARIANT

static bool & batch_invariant() {
    static bool on = [] {
        const char * env = getenv("GGML_CPU_BATCH_INVARIANT");
        return env != nullptr && strcmp(env, "1") == 0;
    }();
    return on;
}

void ggml_cpu_set_batch_invariant(bool on) {
    batch_invariant() = on;
}

bool ggml_cpu_batch_invariant(void) {
    return batch_invariant();
}
