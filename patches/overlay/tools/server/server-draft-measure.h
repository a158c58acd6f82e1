#pragma once

// what the server finds out about itself at start: what a batch of n tokens costs, and whether its results are those of single tokens [aded]

#include <cstdint>
#include <string>
#include <vector>

struct llama_context;

struct server_draft_measures {
    // µs of a forward pass of n tokens, all with logits
    std::vector<int32_t> cost_n;
    std::vector<float>   cost_us;

    // numbers of tokens that were compared with one-by-one decoding, and those of them whose logits are the same to the last bit
    std::vector<int32_t> tested_n;
    std::vector<int32_t> exact_n;

    // standard deviation of the noise that a batch puts on the difference of two of the largest logits; 0 if all are exact
    float noise = 0.0f;

    // whether all batches of up to n tokens were tested and are exact
    bool exact_up_to(int32_t n) const;

    // the largest number of tokens up to which everything tested is exact, at least 1
    int32_t exact_max() const;
};

// both measurements, bounded to about three seconds together, and the time for a long context
// n_max: most tokens of one batch; long_us: batches are compared after a long context, too, unless it takes more time than this
// file: results of earlier starts, by key; empty: none. a file that cannot be read is made anew
// leaves the memory of the context empty
server_draft_measures server_draft_measure(struct llama_context * ctx, int32_t n_max, int64_t long_us, const std::string & file, const std::string & key);

// parts of it, for tests

struct server_draft_cost_sample {
    int32_t            n;
    std::vector<float> us;
};

// lower quartiles of the samples; where a larger batch seems cheaper by no more than the spread, both get their mean
void server_draft_cost_fit(const std::vector<server_draft_cost_sample> & samples, std::vector<int32_t> & n, std::vector<float> & us);

bool server_draft_measures_load(const std::string & file, const std::string & key, server_draft_measures & res);
bool server_draft_measures_save(const std::string & file, const std::string & key, const server_draft_measures & cur);
