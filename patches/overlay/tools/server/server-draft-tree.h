#pragma once

// a draft tree: the tokens that may follow the last accepted token (the root) [aded]

#include "llama.h"

#include <cstdint>
#include <string>
#include <vector>

struct server_draft_tree {
    std::vector<llama_token> tokens;  // the nodes, ordered by depth; the root is not among them
    std::vector<int32_t>     parents; // index of each node's parent, -1 = child of the root
    std::vector<int32_t>     depth;   // 1 for a child of the root
    std::vector<int32_t>     order;   // index of each node in the arrays that set() was given

    int32_t size()  const { return (int32_t) tokens.size(); }
    bool    empty() const { return tokens.empty(); }

    void clear();

    // take over a tree whose nodes come in any order, and sort it by depth
    // returns an empty string, or what is wrong with it ("parents[3] = 9 is out of range (tree has 4 nodes)"), with the tree cleared
    std::string set(const int32_t * tokens, const int32_t * parents, int32_t n, int32_t n_vocab);

    // the child of node (-1: of the root) that carries the token, -1 if there is none
    int32_t child(int32_t node, llama_token token) const;

    // drop the nodes that are deeper than depth_max, and of the rest those beyond the first n_max
    void trim(int32_t depth_max, int32_t n_max);

    // true if each node is the child of the one before
    bool is_chain() const;

    // append another tree with the same root; nodes are sorted again
    void merge(const server_draft_tree & other);

private:
    void sort_by_depth();
};
