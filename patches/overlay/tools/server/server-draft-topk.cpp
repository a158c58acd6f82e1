#include "server-draft-topk.h"

#include <algorithm>
#include <cmath>
#include <functional>

// clones for the vector units that the machine has; the loops below are written for the compiler to vectorize
// note: the choice among them is made before ThreadSanitizer is ready
#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_THREAD__)
#    define DRAFT_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default"), optimize("O3", "associative-math", "no-signed-zeros", "no-trapping-math")))
#else
#    define DRAFT_CLONES
#endif

static constexpr int32_t BLOCK = 64;

// terms that are added up in single precision
static constexpr int32_t BLOCK_SUM = 512;

// note: NaN counts as less than everything
DRAFT_CLONES
static void block_maxima(const float * x, int32_t n_blocks, float * res) {
    for (int32_t b = 0; b < n_blocks; ++b) {
        const float * p = x + (int64_t) b*BLOCK;
        float m = -INFINITY;
        for (int32_t i = 0; i < BLOCK; ++i) {
            m = p[i] > m ? p[i] : m;
        }
        res[b] = m;
    }
}

// sum of exp(x - max); e^y = 2^k * e^r with a polynomial of degree 6 for e^r, |r| <= ln(2)/2: relative error below 1e-6
DRAFT_CLONES
static float sum_exp(const float * x, int32_t n, float max) {
    float sum = 0.0f;
    for (int32_t i = 0; i < n; ++i) {
        float y = x[i] - max;
        y = y > -87.0f ? y : -87.0f;
        const float   k = __builtin_rintf(y*1.44269504f);
        const float   r = y - k*0.693359375f + k*2.12194440e-4f;
        const float   p = 1.0f + r*(1.0f + r*(0.5f + r*(0.166666667f + r*(0.0416666667f + r*(0.00833333333f + r*0.00138888889f)))));
        const int32_t e = ((int32_t) k + 127) << 23;
        float s;
        __builtin_memcpy(&s, &e, sizeof(s));
        sum += p*s;
    }
    return sum;
}

void server_draft_topk::get(const float * logits, int32_t n, int32_t k, int32_t * ids, float * probs) {
    const int32_t n_blocks = n/BLOCK;
    const int32_t n_tail   = n - n_blocks*BLOCK;

    // the maxima of the blocks, the tail being one more block
    block_max.resize(n_blocks + (n_tail > 0));
    block_maxima(logits, n_blocks, block_max.data());
    if (n_tail > 0) {
        float m = -INFINITY;
        for (int32_t i = n_blocks*BLOCK; i < n; ++i) {
            m = logits[i] > m ? logits[i] : m;
        }
        block_max[n_blocks] = m;
    }

    const float max = *std::max_element(block_max.begin(), block_max.end());

    double sum = 0.0;
    for (int32_t i = 0; i < n; i += BLOCK_SUM) {
        sum += sum_exp(logits + i, std::min(BLOCK_SUM, n - i), max);
    }

    lse = max + std::log(sum);

    if (k <= 0) {
        return;
    }

    // at least k logits reach the k-th largest of the maxima, so only blocks that reach it can hold one of the first k
    float thold = -INFINITY;
    if ((int32_t) block_max.size() > k) {
        block_top = block_max;
        std::nth_element(block_top.begin(), block_top.begin() + k - 1, block_top.end(), std::greater<float>());
        thold = block_top[k - 1];
    }

    cand.clear();
    for (size_t b = 0; b < block_max.size(); ++b) {
        if (block_max[b] < thold) {
            continue;
        }
        const int32_t i1 = std::min<int32_t>(n, (b + 1)*BLOCK);
        for (int32_t i = b*BLOCK; i < i1; ++i) {
            if (logits[i] >= thold) {
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
