#pragma once

// the likeliest tokens of a node and their probabilities [aded]

#include "llama.h"

#include <cstdint>
#include <vector>

struct server_draft_topk {
    // the k likeliest of n logits, likeliest first (equal logits: lower id first), and the softmax over all n of them
    // ids [k], probs [k]; k <= n
    void get(const float * logits, int32_t n, int32_t k, int32_t * ids, float * probs);

    // natural logarithm of the sum of the exponentials, of the last get()
    float logsumexp() const { return lse; }

private:
    float lse = 0.0f;

    // scratch
    std::vector<float>   block_max;
    std::vector<float>   block_top;
    std::vector<int32_t> cand;
};
