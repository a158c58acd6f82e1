#include "server-draft-topk.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>

// clones for the vector units that the machine has
// note: the choice among them is made before ThreadSanitizer is ready
#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_THREAD__)
#    define DRAFT_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default"), optimize("O3")))
#else
#    define DRAFT_CLONES
#endif

// logits under one maximum, and such blocks under one maximum
static constexpr int32_t BLOCK = 64;
static constexpr int32_t SUPER = 16;

// what is worked on while it lies in the first-level cache; also bounds what is added up in single precision
static constexpr int32_t CHUNK = BLOCK*SUPER*4;

static constexpr float LOG2E = 1.44269504f;

// exponents below are taken for this one: 2^-100 times any vocabulary is nothing beside 1
static constexpr float EXP_MIN = -100.0f;

// adding it rounds a float to an integer, which then stands in the low bits
static constexpr float ROUND = 12582912.0f; // 1.5*2^23

// 2^f for |f| <= 1/2: interpolation at Chebyshev nodes, relative error below 4e-6
static constexpr float P0 = 1.0f;
static constexpr float P1 = 0.693121045f;
static constexpr float P2 = 0.24022349f;
static constexpr float P3 = 0.0559219758f;
static constexpr float P4 = 0.00966636852f;

// the maxima of the blocks of [0, n); -INFINITY where no number is larger, NaN counts as less than everything
static inline float chunk_max(const float * x, int32_t n, float * block_max) {
    float res = -INFINITY;
    for (int32_t i = 0; i < n; i += BLOCK) {
        const int32_t i1 = std::min(n, i + BLOCK);
        float m = -INFINITY;
        for (int32_t j = i; j < i1; ++j) {
            m = x[j] > m ? x[j] : m;
        }
        *block_max++ = m;
        res = m > res ? m : res;
    }
    return res;
}

static inline float exp_rel(float x, float ref) {
    float y = (x - ref)*LOG2E;
    y = y > EXP_MIN ? y : EXP_MIN;
    const float t = y + ROUND;
    const float f = y - (t - ROUND);
    const float p = P0 + f*(P1 + f*(P2 + f*(P3 + f*P4)));
    int32_t ti;
    int32_t pi;
    memcpy(&ti, &t, sizeof(ti));
    memcpy(&pi, &p, sizeof(pi));
    pi = (int32_t) ((uint32_t) pi + ((uint32_t) ti << 23));
    float res;
    memcpy(&res, &pi, sizeof(res));
    return res;
}

// sum of exp(x - ref)
static inline float chunk_sum_exp(const float * x, int32_t n, float ref) {
    float sum = 0.0f;
    for (int32_t i = 0; i < n; ++i) {
        sum += exp_rel(x[i], ref);
    }
    return sum;
}

#if defined(__GNUC__)

// the same by hand: compilers do not vectorize a sum of floats, whose order counts
typedef float   vec_f __attribute__((vector_size(32), aligned(4)));
typedef int32_t vec_i __attribute__((vector_size(32), aligned(4)));

#    define DRAFT_VEC 8

#    define VEC_SET(x) (vec_f { x, x, x, x, x, x, x, x })

static inline __attribute__((always_inline)) void vec_load(vec_f & v, const float * x) {
    memcpy(&v, x, sizeof(v));
}

static inline __attribute__((always_inline)) void vec_max(vec_f & m, const vec_f & v) {
    m = v > m ? v : m;
}

static inline __attribute__((always_inline)) void vec_exp_add(vec_f & sum, const float * x, const vec_f & ref) {
    vec_f v;
    vec_load(v, x);
    vec_f y = (v - ref)*VEC_SET(LOG2E);
    y = y > VEC_SET(EXP_MIN) ? y : VEC_SET(EXP_MIN);
    const vec_f t = y + VEC_SET(ROUND);
    const vec_f f = y - (t - VEC_SET(ROUND));
    const vec_f p = VEC_SET(P0) + f*(VEC_SET(P1) + f*(VEC_SET(P2) + f*(VEC_SET(P3) + f*VEC_SET(P4))));
    sum += (vec_f) ((vec_i) p + ((vec_i) t << 23));
}

static inline __attribute__((always_inline)) float vec_chunk_max(const float * x, int32_t n, float * block_max) {
    vec_f all = VEC_SET(-INFINITY);
    for (int32_t b = 0; b < n/BLOCK; ++b, x += BLOCK) {
        vec_f m0 = VEC_SET(-INFINITY);
        vec_f m1 = m0;
        for (int32_t i = 0; i < BLOCK; i += 2*DRAFT_VEC) {
            vec_f v0;
            vec_f v1;
            vec_load(v0, x + i);
            vec_load(v1, x + i + DRAFT_VEC);
            vec_max(m0, v0);
            vec_max(m1, v1);
        }
        vec_max(m0, m1);
        vec_max(all, m0);
        float m = m0[0];
        for (int i = 1; i < DRAFT_VEC; ++i) {
            m = m0[i] > m ? m0[i] : m;
        }
        block_max[b] = m;
    }
    float res = all[0];
    for (int i = 1; i < DRAFT_VEC; ++i) {
        res = all[i] > res ? all[i] : res;
    }
    return res;
}

static inline __attribute__((always_inline)) float vec_chunk_sum_exp(const float * x, int32_t n, float ref) {
    const vec_f r = VEC_SET(ref);
    vec_f s0 = VEC_SET(0.0f);
    vec_f s1 = s0;
    vec_f s2 = s0;
    vec_f s3 = s0;
    for (int32_t i = 0; i < n; i += 4*DRAFT_VEC) {
        vec_exp_add(s0, x + i,               r);
        vec_exp_add(s1, x + i +   DRAFT_VEC, r);
        vec_exp_add(s2, x + i + 2*DRAFT_VEC, r);
        vec_exp_add(s3, x + i + 3*DRAFT_VEC, r);
    }
    s0 = (s0 + s1) + (s2 + s3);
    float sum = 0.0f;
    for (int i = 0; i < DRAFT_VEC; ++i) {
        sum += s0[i];
    }
    return sum;
}

#else

static inline float vec_chunk_max(const float * x, int32_t n, float * block_max) {
    return chunk_max(x, n, block_max);
}

static inline float vec_chunk_sum_exp(const float * x, int32_t n, float ref) {
    return chunk_sum_exp(x, n, ref);
}

#endif

// one pass over the logits: the maxima of the blocks, the maximum of all, and the sum of exp(x - that maximum)
DRAFT_CLONES
static void scan(const float * x, int32_t n, float * block_max, float & max, double & sum) {
    max = -INFINITY;
    sum = 0.0;
    for (int32_t i = 0; i < n; i += CHUNK) {
        const int32_t len  = std::min(CHUNK, n - i);
        const int32_t full = len/BLOCK*BLOCK;

        float m = vec_chunk_max(x + i, full, block_max + i/BLOCK);
        if (full < len) {
            m = std::max(m, chunk_max(x + i + full, len - full, block_max + (i + full)/BLOCK));
        }
        if (m > max) {
            sum = max == -INFINITY ? 0.0 : sum*std::exp((double) max - (double) m);
            max = m;
        }
        sum += vec_chunk_sum_exp(x + i, full, max);
        sum += chunk_sum_exp(x + i + full, len - full, max);
    }
}

void server_draft_topk::get(const float * logits, int32_t n, int32_t k, int32_t * ids, float * probs) {
    const int32_t n_blocks = (n + BLOCK - 1)/BLOCK;
    const int32_t n_super  = (n_blocks + SUPER - 1)/SUPER;

    float  max;
    double sum;

    block_max.resize(n_blocks);
    scan(logits, n, block_max.data(), max, sum);

    lse = max + std::log(sum);

    if (k <= 0) {
        return;
    }

    // at least k logits reach the k-th largest of any maxima, so only blocks that reach it can hold one of the first k
    float thold = -INFINITY;
    const auto raise = [&](std::vector<float> & v) {
        if ((int32_t) v.size() >= k) {
            std::nth_element(v.begin(), v.begin() + k - 1, v.end(), std::greater<float>());
            thold = v[k - 1];
        }
    };

    if (n_super >= k) {
        tops.clear();
        for (int32_t s = 0; s < n_super; ++s) {
            tops.push_back(*std::max_element(block_max.begin() + s*SUPER, block_max.begin() + std::min(n_blocks, (s + 1)*SUPER)));
        }
        raise(tops);
    }
    tops.clear();
    for (const float m : block_max) {
        if (m >= thold) {
            tops.push_back(m);
        }
    }
    raise(tops);

    // of those that only equal it, the first k are enough
    cand.clear();
    int32_t n_equal = 0;
    for (int32_t b = 0; b < n_blocks; ++b) {
        if (block_max[b] < thold) {
            continue;
        }
        const int32_t i1 = std::min<int32_t>(n, (b + 1)*BLOCK);
        for (int32_t i = b*BLOCK; i < i1; ++i) {
            if (logits[i] > thold || (logits[i] == thold && n_equal++ < k)) {
                cand.push_back(i);
            }
        }
    }

    const int32_t n_sort = std::min<int32_t>(k, cand.size());
    std::partial_sort(cand.begin(), cand.begin() + n_sort, cand.end(), [&](int32_t a, int32_t b) {
        return logits[a] > logits[b] || (logits[a] == logits[b] && a < b);
    });

    // fewer than k logits are numbers: the others come last
    for (int32_t i = 0; i < n && (int32_t) cand.size() < k; ++i) {
        if (std::isnan(logits[i])) {
            cand.push_back(i);
        }
    }

    for (int32_t i = 0; i < k; ++i) {
        // note: not by way of lse, large logits leave it too few digits
        const float p = std::exp(logits[cand[i]] - max)/sum;

        ids  [i] = cand[i];
        probs[i] = p >= 0.0f ? p : 0.0f; // not a number: infinite logits
    }
}

DRAFT_CLONES
static void scan_max(const float * x, int32_t n, float * block_max) {
    const int32_t full = n/BLOCK*BLOCK;

    vec_chunk_max(x, full, block_max);
    chunk_max(x + full, n - full, block_max + full/BLOCK);
}

server_draft_gap server_draft_topk::gap(const float * logits, int32_t n) {
    const int32_t n_blocks = (n + BLOCK - 1)/BLOCK;

    block_max.resize(n_blocks);
    scan_max(logits, n, block_max.data());

    // the first stands in the block of the largest maximum; the second there too, or in that of the largest of the others
    const int32_t b0 = std::max_element(block_max.begin(), block_max.end()) - block_max.begin();
    block_max[b0] = -INFINITY;
    const int32_t b1 = std::max_element(block_max.begin(), block_max.end()) - block_max.begin();

    server_draft_gap res;
    for (const int32_t b : { b0, b1 }) {
        for (int32_t i = b*BLOCK; i < std::min(n, (b + 1)*BLOCK); ++i) {
            if (i == res.first || i == res.second || std::isnan(logits[i])) {
                continue;
            }
            if (res.first < 0 || logits[i] > logits[res.first]) {
                res.second = res.first;
                res.first  = i;
            } else if (res.second < 0 || logits[i] > logits[res.second]) {
                res.second = i;
            }
        }
    }
    if (res.second >= 0 && std::isfinite(logits[res.first]) && std::isfinite(logits[res.second])) {
        res.gap = logits[res.first] - logits[res.second];
    }
    return res;
}

//
// server_draft_topk_pool
//

// logits for which waking a thread pays
static constexpr int64_t N_WAKE = 200000;

server_draft_topk_pool::server_draft_topk_pool(int32_t n_threads) {
    for (int32_t i = 1; i < std::min(n_threads, 4); ++i) {
        threads.emplace_back([this]() { run(); });
    }
}

server_draft_topk_pool::~server_draft_topk_pool() {
    {
        std::lock_guard<std::mutex> lock(mutex);
        stop = true;
    }
    cond.notify_all();
    for (auto & thread : threads) {
        thread.join();
    }
}

void server_draft_topk_pool::start(std::vector<job> && next) {
    wait();

    int64_t n_work = 0;
    for (const auto & cur : next) {
        n_work += cur.n;
    }
    {
        std::lock_guard<std::mutex> lock(mutex);
        jobs   = std::move(next);
        i_next = 0;
        n_done = 0;
    }
    if (n_work >= N_WAKE) {
        cond.notify_all();
    }
}

void server_draft_topk_pool::wait() {
    std::unique_lock<std::mutex> lock(mutex);
    while (i_next < jobs.size()) {
        work(lock, topk);
    }
    cond_done.wait(lock, [&]() { return n_done == jobs.size(); });
}

void server_draft_topk_pool::work(std::unique_lock<std::mutex> & lock, server_draft_topk & own) {
    const job cur = jobs[i_next++];
    lock.unlock();
    own.get(cur.logits, cur.n, cur.k, cur.ids, cur.probs);
    lock.lock();
    if (++n_done == jobs.size()) {
        cond_done.notify_all();
    }
}

void server_draft_topk_pool::run() {
    server_draft_topk own;

    std::unique_lock<std::mutex> lock(mutex);
    while (true) {
        cond.wait(lock, [&]() { return stop || i_next < jobs.size(); });
        if (stop) {
            return;
        }
        work(lock, own);
    }
}
