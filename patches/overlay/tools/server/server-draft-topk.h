#pragma once

// the likeliest tokens of a node, without sorting the vocabulary [aded]

#include <cmath>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

struct server_draft_gap {
    int32_t first  = -1;
    int32_t second = -1;
    float   gap    = INFINITY; // first less second; INFINITY if one of them is not finite: nothing can change places
};

struct server_draft_topk {
    // the k largest of n logits, largest first (equal ones in the order of their ids, NaN last), and their softmax probabilities
    // over all n logits. ids and probs: [k], k <= n
    void get(const float * logits, int32_t n, int32_t k, int32_t * ids, float * probs);

    // log of the sum of exp(logit) over all n logits of the last get()
    double logsumexp() const { return lse; }

    // the two largest of n logits
    server_draft_gap gap(const float * logits, int32_t n);

private:
    double lse = 0.0;

    // reused between calls
    std::vector<float>   block_max;
    std::vector<float>   tops;
    std::vector<int32_t> cand;
};

// the same for many nodes, in threads of its own beside the one that samples
struct server_draft_topk_pool {
    struct job {
        const float * logits;
        int32_t       n;
        int32_t       k;
        int32_t *     ids;   // [k]
        float *       probs; // [k]
    };

    // n_threads: with the caller's, at most 4 are used
    explicit server_draft_topk_pool(int32_t n_threads);
    ~server_draft_topk_pool();

    server_draft_topk_pool(const server_draft_topk_pool &) = delete;
    server_draft_topk_pool & operator=(const server_draft_topk_pool &) = delete;

    // returns at once; what the jobs point to stays valid until wait()
    void start(std::vector<job> && next);

    // takes its share of what is left, returns when all is done
    void wait();

private:
    void run();
    void work(std::unique_lock<std::mutex> & lock, server_draft_topk & own);

    std::vector<std::thread> threads;
    server_draft_topk        topk; // of the caller of wait()

    std::mutex              mutex;
    std::condition_variable cond;
    std::condition_variable cond_done;
    std::vector<job>        jobs;
    size_t                  i_next = 0;
    size_t                  n_done = 0;
    bool                    stop   = false;
};
