#pragma once

// POST /tree-verify: draft trees of a client, verified in as few forward passes as fit [aded]

#include "server-common.h"
#include "server-draft-topk.h"
#include "server-draft-tree.h"
#include "server-task.h"

#include <cstdint>
#include <memory>
#include <vector>

// the trees of one prompt, and what was found out about them so far
struct server_tree_verify {
    struct top_t {
        std::vector<int32_t> ids;      // likeliest first
        std::vector<float>   logprobs; // natural logarithm
    };

    int32_t top_k = 8;

    std::vector<server_draft_tree> trees;

    top_t                           root;
    std::vector<std::vector<top_t>> nodes; // [tree][node], nodes in the order of the request

    int32_t n_forward = 0;
    int64_t us        = 0;

    // the trees [i_first, i_next) are verified in the pass under way, those from i_next on are still to do
    size_t i_first = 0;
    size_t i_next  = 0;

    bool done() const { return n_forward > 0 && i_next == trees.size(); }

    // the trees of the next pass, as one tree of at most n_max nodes; false if not even the first of them fits
    bool take(int32_t n_max, server_draft_tree & forest);

    // the logits of the root (node -1) or of a node of the pass under way
    void set(server_draft_topk & topk, const server_draft_tree & forest, int32_t node, const float * logits, int32_t n_vocab);

    // without "index"
    json to_json() const;
};

using server_tree_verify_ptr = std::shared_ptr<server_tree_verify>;

struct server_tree_verify_request {
    struct item {
        json                   prompt;
        server_tree_verify_ptr verify;
    };

    std::vector<item> items;

    // throws std::invalid_argument that names the place and the fault
    static server_tree_verify_request parse(const std::string & body, int32_t n_vocab, int32_t max_nodes);
};

struct server_task_result_tree_verify : server_task_result {
    server_tree_verify_ptr verify;

    int32_t n_prompt  = 0;
    int32_t n_cached  = 0;
    double  prompt_ms = 0.0;

    virtual json to_json() override;
};
