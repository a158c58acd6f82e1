#pragma once

// the order of cells by sequence and position [aded]
//
// cells that are freed are taken again, so that a sequence's cells need not lie in the order of its positions. a kernel
// that sums up cell by cell gets other last bits then. and where sequences decode side by side in one cache, their cells
// lie between each other, so that a kernel that takes several cells at a time takes those of all sequences for each.
// for such kernels flash attention has an order as its source 5, and for small batches the mask in that order as its
// source 6; the input of the KQ mask holds both, to be filled with it

#include "llama-kv-cells.h"

#include "ggml.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>
#include <numeric>
#include <vector>

// the largest batch for which the mask is put in order once, and not by every layer
static constexpr int64_t LLAMA_KV_ORDER_MAX_TOKENS = 64;

// order: [n_kv] cells of several sequences by position, then those of one sequence after the other, by position, the empty
// ones last; -1 at the front if every sequence's cells are in order and together as they are
inline void llama_kv_order(const llama_kv_cells & cells, int64_t n_kv, int32_t * order) {
    constexpr int N_GROUPS = LLAMA_MAX_SEQ + 2; // of several sequences, of each sequence, empty

    constexpr llama_pos POS_MAX = std::numeric_limits<llama_pos>::max();

    struct sequence {
        llama_pos last       = -1; // of the cells looked at
        llama_pos shared_end = -1; // of the cells that other sequences have, too, the last one
        llama_pos own_begin  = POS_MAX;
    };
    std::array<sequence, LLAMA_MAX_SEQ>   seqs;
    std::array<int32_t,  N_GROUPS + 1>    begin = {}; // of the groups in the order
    std::vector<uint16_t>                 group(n_kv);

    bool in_order = true;
    int  n_runs   = 0;

    for (int64_t i = 0; i < n_kv; ++i) {
        if (cells.is_empty(i)) {
            group[i] = N_GROUPS - 1;
        } else {
            const llama_pos pos = cells.pos_get(i);
            if (cells.seq_count(i) == 1) {
                const llama_seq_id s = cells.seq_get(i);
                group[i] = s + 1;
                in_order &= seqs[s].last <= pos;
                seqs[s].last      = pos;
                seqs[s].own_begin = std::min(seqs[s].own_begin, pos);
            } else {
                group[i] = 0;
                for (llama_seq_id s = 0; s < (llama_seq_id) LLAMA_MAX_SEQ; ++s) {
                    if (cells.seq_has(i, s)) {
                        in_order &= seqs[s].last <= pos;
                        seqs[s].last       = pos;
                        seqs[s].shared_end = std::max(seqs[s].shared_end, pos);
                    }
                }
            }
        }
        n_runs += i == 0 || group[i] != group[i - 1];
        begin[group[i] + 1]++;
    }

    const int n_groups = std::count_if(begin.begin(), begin.end(), [](int32_t n) { return n > 0; });
    if (in_order && n_runs <= 4*n_groups) {
        order[0] = -1;
        return;
    }

    const auto by_pos = [&](int32_t a, int32_t b) { return cells.pos_get(a) < cells.pos_get(b); };

    // what sequences share comes first; where that would not be the order of their positions, all cells are one group
    const bool apart = std::all_of(seqs.begin(), seqs.end(), [](const sequence & s) { return s.shared_end <= s.own_begin; });
    if (!apart) {
        const auto pos = [&](int32_t i) { return cells.is_empty(i) ? POS_MAX : cells.pos_get(i); };
        std::iota(order, order + n_kv, 0);
        std::stable_sort(order, order + n_kv, [&](int32_t a, int32_t b) { return pos(a) < pos(b); });
        return;
    }

    std::partial_sum(begin.begin(), begin.end(), begin.begin());
    auto next = begin;
    for (int64_t i = 0; i < n_kv; ++i) {
        order[next[group[i]]++] = i;
    }
    for (int g = 0; g < N_GROUPS - 1; ++g) {
        if (!std::is_sorted(order + begin[g], order + begin[g + 1], by_pos)) {
            std::stable_sort(order + begin[g], order + begin[g + 1], by_pos);
        }
    }
}

// mask: [n_kv, n_tokens per stream, 1, n_stream], F16; its rows in that order into dst, which has the same shape. Streams whose cells stay as
// they are are left out
inline void llama_kv_order_mask(const ggml_tensor * mask, const ggml_tensor * order, ggml_tensor * dst) {
    const int64_t n_kv = mask->ne[0];
    const int64_t n_tps = mask->ne[1];

    for (int64_t s = 0; s < mask->ne[3]; ++s) {
        const int32_t * cell = (const int32_t *) order->data + s*n_kv;
        if (cell[0] < 0) {
            continue;
        }
        for (int64_t i = s*n_tps; i < (s + 1)*n_tps; ++i) {
            const ggml_fp16_t * src = (const ggml_fp16_t *) mask->data + i*n_kv;
            ggml_fp16_t *       out = (ggml_fp16_t *) dst->data + i*n_kv;
            for (int64_t c = 0; c < n_kv; ++c) {
                out[c] = src[cell[c]];
            }
        }
    }
}
