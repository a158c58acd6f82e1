#pragma once

// draft trees in one sequence of a batch [aded]
//
// the tokens of a tree share positions (pos = root pos + depth), so the causal rule alone would let siblings see each
// other. llama_kv_tree remembers which cells the current batch wrote for tree nodes, and drops from the KQ mask of a node
// every such cell that is not its ancestor. what remains visible is exactly what the node would see if its path had been
// decoded token by token
//
// state is valid from the decode of a batch until the next one

#include "llama-batch.h"
#include "llama-cparams.h"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

struct llama_kv_tree {
    // parents[i]: the batch index of the parent of batch token i, -1 if the token is not a draft node
    // note: the parameters are already validated, see llama_tree_validate()
    void set(const llama_batch & batch, const std::vector<int32_t> & parents_new) {
        nodes.clear();
        parents = parents_new;

        idx_to_node.assign(parents.size(), -1);

        for (int32_t i = 0; i < (int32_t) parents.size(); ++i) {
            if (parents[i] < 0) {
                continue;
            }

            idx_to_node[i] = nodes.size();
            nodes.push_back({ i, -1, batch.seq_id[i][0], batch.pos[i] });
        }
    }

    bool empty() const {
        return nodes.empty();
    }

    // token i of the ubatch is now stored in cell
    void place(const llama_ubatch & ubatch, uint32_t i, int32_t cell) {
        if (!is_of_batch(ubatch)) {
            return;
        }

        const int32_t n = idx_to_node[ubatch.data->batch_idx[i]];
        if (n >= 0) {
            nodes[n].cell = cell;
        }
    }

    void unplace_all() {
        for (auto & node : nodes) {
            node.cell = -1;
        }
    }

    // the last position of the sequence that is certain to stay, i.e. the position of the tree's root
    // cells that are outside of the SWA window only for a draft node must not be reused
    llama_pos pos_root(llama_seq_id seq_id) const {
        llama_pos res = std::numeric_limits<llama_pos>::max();
        for (const auto & node : nodes) {
            if (node.seq_id == seq_id && node.pos - 1 < res) {
                res = node.pos - 1;
            }
        }
        return res;
    }

    // drop from the rows of the ubatch's draft nodes the cells of the nodes that are not their ancestors
    template<typename T>
    void mask(const llama_ubatch & ubatch, T * data, int64_t n_kv, T drop) const {
        if (!is_of_batch(ubatch)) {
            return;
        }

        std::vector<bool> is_ancestor(nodes.size());

        for (uint32_t i = 0; i < ubatch.n_tokens; ++i) {
            int32_t idx = ubatch.data->batch_idx[i];
            if (idx_to_node[idx] < 0) {
                continue;
            }

            const llama_seq_id seq_id = nodes[idx_to_node[idx]].seq_id;

            is_ancestor.assign(nodes.size(), false);
            for (; idx >= 0 && idx_to_node[idx] >= 0; idx = parents[idx]) {
                is_ancestor[idx_to_node[idx]] = true;
            }

            for (size_t n = 0; n < nodes.size(); ++n) {
                const auto & node = nodes[n];
                if (node.seq_id == seq_id && node.cell >= 0 && node.cell < n_kv && !is_ancestor[n]) {
                    data[n_kv*i + node.cell] = drop;
                }
            }
        }
    }

    struct outcome {
        std::vector<uint32_t> kept;     // cells of the path, from the root's child downwards
        std::vector<uint32_t> rejected; // cells of the other nodes
    };

    // what becomes of the cells of seq_id's nodes when those listed in path (batch indices) are kept; its tree is over then
    outcome take(llama_seq_id seq_id, const int32_t * path, int32_t n_path) {
        outcome res;

        for (int32_t i = 0; i < n_path; ++i) {
            const int32_t n = path[i] >= 0 && path[i] < (int32_t) idx_to_node.size() ? idx_to_node[path[i]] : -1;
            if (n >= 0 && nodes[n].seq_id == seq_id && nodes[n].cell >= 0) {
                res.kept.push_back(nodes[n].cell);
                nodes[n].cell = -1;
            }
        }

        for (auto & node : nodes) {
            if (node.seq_id == seq_id && node.cell >= 0) {
                res.rejected.push_back(node.cell);
                node.cell = -1;
            }
        }

        return res;
    }

    // where the kept cells would lie if the rejected nodes had never been: the first of all the tree's cells
    // note: moving them there keeps the cells in the order of their positions, so that the attention sums up in the very order
    //       of plain decoding. empty if the cells are not in order
    static std::vector<uint32_t> targets(const outcome & cells) {
        if (!std::is_sorted(cells.kept.begin(), cells.kept.end())) {
            return {};
        }

        std::vector<uint32_t> res = cells.kept;
        res.insert(res.end(), cells.rejected.begin(), cells.rejected.end());
        std::sort(res.begin(), res.end());
        res.resize(cells.kept.size());

        return res;
    }

private:
    // false for the ubatches that are made up to restore a saved state
    bool is_of_batch(const llama_ubatch & ubatch) const {
        return !empty() && ubatch.data && ubatch.data->batch_idx.size() == ubatch.n_tokens;
    }

    struct node_t {
        int32_t      idx;  // batch index
        int32_t      cell; // cell in the stream of the sequence, -1: not placed yet
        llama_seq_id seq_id;
        llama_pos    pos;
    };

    std::vector<int32_t> parents;     // [n_tokens] of the batch
    std::vector<int32_t> idx_to_node; // [n_tokens] batch index -> nodes
    std::vector<node_t>  nodes;
};

// nullptr if parents describe valid trees for the batch, otherwise what is wrong with them
inline const char * llama_tree_validate(const llama_batch & batch, const std::vector<int32_t> & parents) {
    if ((int32_t) parents.size() != batch.n_tokens) {
        return "the number of parents differs from the number of tokens";
    }
    for (int32_t i = 0; i < batch.n_tokens; ++i) {
        const int32_t p = parents[i];
        if (p < 0) {
            continue;
        }
        if (p >= i) {
            return "a parent does not come before its child";
        }
        if (batch.n_seq_id[i] != 1 || batch.n_seq_id[p] != 1 || batch.seq_id[i][0] != batch.seq_id[p][0]) {
            return "a node and its parent are not in one and the same sequence";
        }
        if (batch.pos[i] != batch.pos[p] + 1) {
            return "the position of a node is not the position of its parent + 1";
        }
    }
    return nullptr;
}
