#include "server-draft-tree.h"

#include "common.h"

#include <algorithm>
#include <numeric>

void server_draft_tree::clear() {
    tokens .clear();
    parents.clear();
    depth  .clear();
    order  .clear();
}

std::string server_draft_tree::set(const int32_t * tokens_in, const int32_t * parents_in, int32_t n, int32_t n_vocab) {
    clear();

    for (int32_t i = 0; i < n; ++i) {
        if (tokens_in[i] < 0 || tokens_in[i] >= n_vocab) {
            return string_format("tokens[%d] = %d is not in the vocabulary (%d tokens)", i, tokens_in[i], n_vocab);
        }
        if (parents_in[i] < -1 || parents_in[i] >= n) {
            return string_format("parents[%d] = %d is out of range (tree has %d nodes)", i, parents_in[i], n);
        }
    }

    std::vector<int32_t> depth_in(n, 0);

    for (int32_t i = 0; i < n; ++i) {
        int32_t d = 0;
        for (int32_t j = i; j >= 0; j = parents_in[j]) {
            if (++d > n) {
                return string_format("parents[%d] = %d leads into a cycle", i, parents_in[i]);
            }
        }
        depth_in[i] = d;
    }

    tokens .assign(tokens_in,  tokens_in  + n);
    parents.assign(parents_in, parents_in + n);
    depth = std::move(depth_in);
    order.resize(n);
    std::iota(order.begin(), order.end(), 0);

    sort_by_depth();

    return "";
}

void server_draft_tree::sort_by_depth() {
    if (std::is_sorted(depth.begin(), depth.end())) {
        return;
    }

    const int32_t n = size();

    std::vector<int32_t> by_depth(n);
    std::iota(by_depth.begin(), by_depth.end(), 0);
    std::stable_sort(by_depth.begin(), by_depth.end(), [&](int32_t a, int32_t b) { return depth[a] < depth[b]; });

    std::vector<int32_t> rank(n);
    for (int32_t i = 0; i < n; ++i) {
        rank[by_depth[i]] = i;
    }

    server_draft_tree old = *this;
    for (int32_t i = 0; i < n; ++i) {
        const int32_t j = by_depth[i];

        tokens [i] = old.tokens[j];
        parents[i] = old.parents[j] < 0 ? -1 : rank[old.parents[j]];
        depth  [i] = old.depth[j];
        order  [i] = old.order[j];
    }
}

int32_t server_draft_tree::child(int32_t node, llama_token token) const {
    for (int32_t i = node + 1; i < size(); ++i) {
        if (parents[i] == node && tokens[i] == token) {
            return i;
        }
    }
    return -1;
}

void server_draft_tree::trim(int32_t depth_max, int32_t n_max) {
    // note: sorted by depth, so what is cut off has no descendants left
    int32_t n = std::min(size(), std::max(0, n_max));
    while (n > 0 && depth[n - 1] > depth_max) {
        n--;
    }

    tokens .resize(n);
    parents.resize(n);
    depth  .resize(n);
    order  .resize(n);
}

bool server_draft_tree::is_chain() const {
    for (int32_t i = 0; i < size(); ++i) {
        if (parents[i] != i - 1) {
            return false;
        }
    }
    return true;
}

void server_draft_tree::merge(const server_draft_tree & other) {
    const int32_t n = size();

    for (int32_t i = 0; i < other.size(); ++i) {
        tokens .push_back(other.tokens[i]);
        parents.push_back(other.parents[i] < 0 ? -1 : other.parents[i] + n);
        depth  .push_back(other.depth[i]);
        order  .push_back(other.order[i] + n);
    }

    sort_by_depth();
}
