#pragma once

// the order of cells by position [aded]
//
// cells that are freed are taken again, so that a sequence's cells need not lie in the order of its positions. a kernel
// that sums up cell by cell gets other last bits then. for such kernels the input of the KQ mask carries the order

#include "llama-kv-cells.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>
#include <numeric>

// order: [n_kv] cells by position, the empty ones last; -1 at the front if every sequence's cells are in order as they are
inline void llama_kv_order(const llama_kv_cells & cells, int64_t n_kv, int32_t * order) {
    std::array<llama_pos, LLAMA_MAX_SEQ> last;
    last.fill(-1);

    bool in_order = true;

    const auto check = [&](llama_seq_id seq_id, llama_pos pos) {
        in_order &= last[seq_id] <= pos;
        last[seq_id] = pos;
    };

    for (int64_t i = 0; i < n_kv && in_order; ++i) {
        if (cells.is_empty(i)) {
            continue;
        }
        const llama_pos pos = cells.pos_get(i);
        if (cells.seq_count(i) == 1) {
            check(cells.seq_get(i), pos);
            continue;
        }
        for (llama_seq_id s = 0; s < (llama_seq_id) LLAMA_MAX_SEQ; ++s) {
            if (cells.seq_has(i, s)) {
                check(s, pos);
            }
        }
    }

    if (in_order) {
        order[0] = -1;
        return;
    }

    const auto pos = [&](int32_t i) {
        return cells.is_empty(i) ? std::numeric_limits<llama_pos>::max() : cells.pos_get(i);
    };
    std::iota(order, order + n_kv, 0);
    std::stable_sort(order, order + n_kv, [&](int32_t a, int32_t b) { return pos(a) < pos(b); });
}
