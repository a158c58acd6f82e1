// Matrix multiplication, column by column, for what does not lie in panels: types without panels, low-rank adapters,
// the cache when flash attention is off. The results are those of the stock path for a single column.

#include "invariant.h"

#include "ggml-backend-impl.h"
#include "ggml-cpu-impl.h"
#include "ggml-cpu.h"

#include <algorithm>

namespace ggml::cpu::invariant {

// beyond, it is prefill: the stock path is far faster, and no token that is decoded comes in such a batch by itself
static constexpr int64_t MAX_COLS = 64;

struct column_tensor_traits : tensor_traits {
    bool work_size(int, const ggml_tensor * op, size_t & size) override {
        size = ggml_row_size(ggml_get_type_traits_cpu(op->src[0]->type)->vec_dot_type, ggml_nelements(op->src[1]));
        return true;
    }

    bool compute_forward(ggml_compute_params * params, ggml_tensor * dst) override {
        const ggml_tensor * src0 = dst->src[0];
        const ggml_tensor * src1 = dst->src[1];

        const auto *  traits = ggml_get_type_traits_cpu(src0->type);
        const auto *  to     = ggml_get_type_traits_cpu(traits->vec_dot_type);
        const int64_t K      = src0->ne[0];
        const int64_t block  = ggml_blck_size(traits->vec_dot_type);
        const size_t  size   = ggml_row_size(traits->vec_dot_type, K);
        const int64_t n_rows = src0->ne[1];
        const int64_t n_cols = ggml_nrows(src1);

        auto at = [](const ggml_tensor * t, int64_t i1, int64_t i2, int64_t i3) {
            return (char *) t->data + i1*t->nb[1] + i2*t->nb[2] + i3*t->nb[3];
        };
        auto for_columns = [&](auto f) {
            for (int64_t c = 0; c < n_cols; c++) {
                f(c, c%src1->ne[1], c/src1->ne[1]%src1->ne[2], c/(src1->ne[1]*src1->ne[2]));
            }
        };

        const int64_t b0 = K/block*params->ith/params->nth, b1 = K/block*(params->ith + 1)/params->nth;
        for_columns([&](int64_t c, int64_t i1, int64_t i2, int64_t i3) {
            to->from_float((const float *) at(src1, i1, i2, i3) + b0*block,
                           (char *) params->wdata + c*size + b0*ggml_type_size(traits->vec_dot_type), (b1 - b0)*block);
        });
        if (params->ith == 0) {
            ggml_threadpool_chunk_set(params->threadpool, params->nth);
        }
        ggml_barrier(params->threadpool);

        const int64_t n_chunks = std::min<int64_t>(n_rows, params->nth == 1 ? 1 : params->nth*4);
        for (int64_t chunk = params->ith; chunk < n_chunks; chunk = ggml_threadpool_chunk_add(params->threadpool, 1)) {
            const int64_t end = n_rows*(chunk + 1)/n_chunks;
            // a few rows stay in the first level cache for all columns
            for (int64_t r0 = n_rows*chunk/n_chunks; r0 < end; r0 += 8) {
                for_columns([&](int64_t c, int64_t i1, int64_t i2, int64_t i3) {
                    float * y = (float *) at(dst, i1, i2, i3);
                    for (int64_t r = r0; r < std::min(r0 + 8, end); r++) {
                        traits->vec_dot((int) K, y + r, 0,
                                        at(src0, r, i2/(src1->ne[2]/src0->ne[2]), i3/(src1->ne[3]/src0->ne[3])), 0,
                                        (const char *) params->wdata + c*size, 0, 1);
                    }
                });
            }
        }
        return true;
    }
};

tensor_traits * column_traits(const ggml_tensor * op) {
    static column_tensor_traits traits;

    const ggml_tensor * src0 = op->src[0];
    const ggml_tensor * src1 = op->src[1];
    if (op->op != GGML_OP_MUL_MAT || src1->type != GGML_TYPE_F32 || src1->ne[1] < 2 || src1->ne[1] > MAX_COLS) {
        return nullptr;
    }
    // weights in another layout are not ours to read
    if (src0->buffer && !ggml_backend_buft_is_host(src0->buffer->buft)) {
        return nullptr;
    }
    // FWHT and other hints have kernels of their own
    if (ggml_get_op_params_i32(op, 1) != GGML_HINT_NONE) {
        return nullptr;
    }
    const auto * cpu = ggml_get_type_traits_cpu(src0->type);
    if (src0->nb[0] != ggml_type_size(src0->type) || cpu->vec_dot == nullptr || ggml_get_type_traits_cpu(cpu->vec_dot_type)->from_float == nullptr) {
        return nullptr;
    }
    return &traits;
}

} // namespace ggml::cpu::invariant
