#include "server-draft-measure.h"

#include "common.h"
#include "ggml.h"
#include "llama.h"
#include "log.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <random>

#ifndef _WIN32
#    include <unistd.h>
#endif

#define DRM_INF(fmt, ...) LOG_INF("drm  %12.*s: " fmt, 12, __func__, __VA_ARGS__)
#define DRM_WRN(fmt, ...) LOG_WRN("drm  %12.*s: " fmt, 12, __func__, __VA_ARGS__)

using json = nlohmann::ordered_json;

static const int32_t SIZES[] = { 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64 };

static constexpr int64_t COST_US  = 1000000; // for the cost
static constexpr int64_t EXACT_US = 1000000; // for the comparison, after each of two contexts
static constexpr int32_t N_ROUNDS = 24;

// the contexts after which batches are compared: some kernels work otherwise from 512 cells on (ggml-cpu/ops.cpp, split-KV attention)
static constexpr int32_t N_SHORT = 24;
static constexpr int32_t N_LONG  = 544;

// entries kept in the file
static constexpr size_t  N_KEEP    = 32;
static constexpr int64_t MAX_BYTES = 1 << 20;

bool server_draft_measures::exact_up_to(int32_t n) const {
    int32_t n_last = 1;
    for (const int32_t size : SIZES) {
        n_last = size <= n ? size : n_last;
    }
    return n_last == 1 || (!tested_n.empty() && tested_n.back() >= n_last && exact_n.size() == tested_n.size());
}

int32_t server_draft_measures::exact_max() const {
    int32_t res = 1;
    for (const int32_t n : tested_n) {
        if (std::find(exact_n.begin(), exact_n.end(), n) == exact_n.end()) {
            break;
        }
        res = n;
    }
    return res;
}

static float quantile(std::vector<float> v, double q) {
    std::sort(v.begin(), v.end());
    return v[(size_t) (q*(v.size() - 1))];
}

void server_draft_cost_fit(const std::vector<server_draft_cost_sample> & samples, std::vector<int32_t> & n, std::vector<float> & us) {
    n .clear();
    us.clear();

    // neighbours that the noise does not tell apart, in the wrong order, become one pool
    struct pool_t { double us; double spread; size_t count; };
    std::vector<pool_t> pools;

    for (const auto & cur : samples) {
        if (cur.us.empty()) {
            break;
        }
        n.push_back(cur.n);
        pools.push_back({ quantile(cur.us, 0.25), quantile(cur.us, 0.5) - quantile(cur.us, 0.0), 1 });
        while (pools.size() > 1) {
            const pool_t b = pools.back();
            pool_t &     a = pools[pools.size() - 2];
            if (a.us <= b.us || a.us - b.us > a.spread + b.spread) {
                break;
            }
            a.us     = (a.us*a.count + b.us*b.count)/(a.count + b.count);
            a.spread = std::max(a.spread, b.spread);
            a.count += b.count;
            pools.pop_back();
        }
    }
    for (const auto & p : pools) {
        us.insert(us.end(), p.count, (float) p.us);
    }
}

// decode n tokens from position pos on; false if that fails
static bool decode(llama_context * ctx, llama_batch & batch, const std::vector<llama_token> & tokens, int32_t pos, int32_t n, bool all = true) {
    common_batch_clear(batch);
    for (int32_t i = 0; i < n; ++i) {
        common_batch_add(batch, tokens[pos + i], pos + i, { 0 }, all || i + 1 == n);
    }
    const bool ok = llama_decode(ctx, batch) == 0;
    llama_synchronize(ctx);
    return ok;
}

// rounds over all sizes, so that what else the machine does falls on all of them
static void measure_cost(llama_context * ctx, llama_batch & batch, const std::vector<llama_token> & tokens, int32_t n_max, server_draft_measures & res) {
    const int64_t t_start = ggml_time_us();
    auto * mem = llama_get_memory(ctx);

    std::vector<server_draft_cost_sample> samples;
    for (int32_t round = 0; round < N_ROUNDS; ++round) {
        bool more = true;
        for (size_t i = 0; i < std::size(SIZES) && SIZES[i] <= n_max && more; ++i) {
            if (round > 0 && i >= samples.size()) {
                break;
            }
            // the first one builds the graph
            int64_t t0 = 0;
            for (int rep = 0; rep < 2 && more; ++rep) {
                t0   = ggml_time_us();
                more = decode(ctx, batch, tokens, 0, SIZES[i]);
                t0   = ggml_time_us() - t0;
                llama_memory_clear(mem, true);
            }
            if (!more) {
                break;
            }
            if (round == 0) {
                samples.push_back({ SIZES[i], {} });
            }
            samples[i].us.push_back(t0);
            more = ggml_time_us() - t_start < COST_US;
        }
        if (!more) {
            break;
        }
    }

    server_draft_cost_fit(samples, res.cost_n, res.cost_us);
}

// the sum of the squares of the noise that batches put on the difference of two of the largest logits
struct noise_sum {
    double  sum2 = 0.0;
    int64_t n    = 0;

    // x: logits from a batch, y: those of a single token
    void add(const float * x, const std::vector<float> & y) {
        static constexpr int32_t N_TOP = 16;

        std::vector<int32_t> top(y.size());
        for (size_t t = 0; t < top.size(); ++t) {
            top[t] = t;
        }
        const int32_t n_top = std::min<int32_t>(N_TOP, y.size());
        std::partial_sort(top.begin(), top.begin() + n_top, top.end(), [&](int32_t a, int32_t b) { return y[a] > y[b]; });
        for (int32_t t = 1; t < n_top; ++t) {
            const double d = ((double) x[top[t]] - x[top[0]]) - ((double) y[top[t]] - y[top[0]]);
            if (std::isfinite(d)) {
                sum2 += d*d;
                n++;
            }
        }
    }
};

// the logits of batches of n tokens beside those of one-by-one decoding, after the same n_context tokens
// tested, exact: the sizes n that were compared, and those whose logits are the same
static void measure_exact(llama_context * ctx, llama_batch & batch, const std::vector<llama_token> & tokens, int32_t n_context, int32_t n_max,
        std::vector<int32_t> & tested, std::vector<int32_t> & exact, noise_sum & noise) {
    auto * mem = llama_get_memory(ctx);

    const int32_t n_vocab = llama_vocab_n_tokens(llama_model_get_vocab(llama_get_model(ctx)));

    // note: not every kind of memory can go back to where it was
    const auto context = [&](bool again) {
        if (again && llama_memory_seq_rm(mem, 0, n_context, -1)) {
            return true;
        }
        if (again && n_context > N_SHORT) {
            return false;
        }
        llama_memory_clear(mem, true);
        const int32_t n_batch = std::min<int32_t>(64, llama_n_batch(ctx));
        for (int32_t i = 0; i < n_context; i += n_batch) {
            if (!decode(ctx, batch, tokens, i, std::min(n_batch, n_context - i), false)) {
                return false;
            }
        }
        return true;
    };

    if (n_max < 2 || !context(false)) {
        return;
    }

    const int64_t t_start = ggml_time_us();

    // one by one, for half of the time
    std::vector<std::vector<float>> single;
    while ((int32_t) single.size() < n_max && (single.size() < 4 || ggml_time_us() - t_start < EXACT_US/2)) {
        if (!decode(ctx, batch, tokens, n_context + single.size(), 1)) {
            return;
        }
        const float * logits = llama_get_logits_ith(ctx, 0);
        single.emplace_back(logits, logits + n_vocab);
    }

    for (const int32_t n : SIZES) {
        if (n == 1) {
            continue;
        }
        if (n > (int32_t) single.size() || (n > 4 && ggml_time_us() - t_start > EXACT_US)) {
            break;
        }
        if (!context(true) || !decode(ctx, batch, tokens, n_context, n)) {
            break;
        }
        bool same = true;
        for (int32_t i = 0; i < n; ++i) {
            const float * x = llama_get_logits_ith(ctx, i);
            if (memcmp(x, single[i].data(), n_vocab*sizeof(float)) != 0) {
                same = false;
                noise.add(x, single[i]);
            }
        }
        tested.push_back(n);
        if (same) {
            exact.push_back(n);
        }
    }
}

// long_us: the most time that the long context may take
static void measure_exact(llama_context * ctx, llama_batch & batch, const std::vector<llama_token> & tokens, int32_t n_max, int64_t long_us, server_draft_measures & res) {
    const int32_t n_ctx = llama_n_ctx_seq(ctx);

    noise_sum noise;

    // note: where the context is short, both are
    const int32_t n_short = std::min(N_SHORT, n_ctx/2);
    measure_exact(ctx, batch, tokens, n_short, std::min(n_max, n_ctx - n_short), res.tested_n, res.exact_n, noise);

    const bool has_time = !res.cost_n.empty() && (double) res.cost_us.back()/res.cost_n.back()*N_LONG <= long_us;
    if (has_time && n_ctx >= N_LONG + 2) {
        std::vector<int32_t> tested;
        std::vector<int32_t> exact;
        measure_exact(ctx, batch, tokens, N_LONG, std::min(n_max, n_ctx - N_LONG), tested, exact, noise);
        if (!tested.empty()) {
            // after both, or not at all
            const auto keep = [](std::vector<int32_t> & v, const std::vector<int32_t> & in) {
                v.erase(std::remove_if(v.begin(), v.end(), [&](int32_t n) { return std::find(in.begin(), in.end(), n) == in.end(); }), v.end());
            };
            keep(res.tested_n, tested);
            keep(res.exact_n,  tested);
            keep(res.exact_n,  exact);
        }
    }

    res.noise = noise.n > 0 ? std::sqrt(noise.sum2/noise.n) : 0.0f;
}

static json read_file(const std::string & file) {
    std::ifstream in(file, std::ios::binary | std::ios::ate);
    if (!in) {
        return json::array();
    }
    if (in.tellg() > MAX_BYTES) {
        return json();
    }
    in.seekg(0);
    return json::parse(in, nullptr, false);
}

bool server_draft_measures_load(const std::string & file, const std::string & key, server_draft_measures & res) {
    const auto ascending = [](const std::vector<int32_t> & v) {
        for (size_t i = 0; i < v.size(); ++i) {
            if (v[i] < 1 || v[i] > 64 || (i > 0 && v[i] <= v[i - 1])) {
                return false;
            }
        }
        return true;
    };
    try {
        const json all = read_file(file);
        if (!all.is_array()) {
            throw std::runtime_error("not an array");
        }
        for (const auto & cur : all) {
            if (cur.at("key").get<std::string>() != key) {
                continue;
            }
            server_draft_measures m;
            m.cost_n   = cur.at("cost_n")  .get<std::vector<int32_t>>();
            m.cost_us  = cur.at("cost_us") .get<std::vector<float>>();
            m.tested_n = cur.at("tested_n").get<std::vector<int32_t>>();
            m.exact_n  = cur.at("exact_n") .get<std::vector<int32_t>>();
            m.noise    = cur.at("noise")   .get<float>();

            bool ok = m.cost_n.size() == m.cost_us.size() && !m.cost_n.empty() && m.cost_n[0] == 1;
            ok = ok && ascending(m.cost_n) && ascending(m.tested_n) && ascending(m.exact_n) && m.noise >= 0.0f && std::isfinite(m.noise);
            for (const float us : m.cost_us) {
                ok = ok && us > 0.0f && std::isfinite(us);
            }
            if (!ok) {
                throw std::runtime_error("values out of range");
            }
            res = std::move(m);
            return true;
        }
    } catch (const std::exception & e) {
        DRM_WRN("%s is damaged (%s), measuring again\n", file.c_str(), e.what());
    }
    return false;
}

bool server_draft_measures_save(const std::string & file, const std::string & key, const server_draft_measures & cur) {
    json all = json::array();
    all.push_back({
        {"key",      key},
        {"cost_n",   cur.cost_n},
        {"cost_us",  cur.cost_us},
        {"tested_n", cur.tested_n},
        {"exact_n",  cur.exact_n},
        {"noise",    cur.noise},
    });
    const json old = read_file(file);
    if (old.is_array()) {
        for (const auto & e : old) {
            if (all.size() < N_KEEP && e.is_object() && e.contains("key") && e.at("key").is_string() && e.at("key") != key) {
                all.push_back(e);
            }
        }
    }

    // in one move: another server may read it meanwhile
#ifdef _WIN32
    const std::string part = file + ".part";
#else
    const std::string part = file + string_format(".%d", (int) getpid());
#endif
    {
        std::ofstream out(part, std::ios::binary | std::ios::trunc);
        out << all.dump(1) << "\n";
        if (!out.flush()) {
            std::remove(part.c_str());
            return false;
        }
    }
    if (std::rename(part.c_str(), file.c_str()) != 0) {
        std::remove(part.c_str());
        return false;
    }
    return true;
}

// a table that was measured while the machine was busy is not kept for ever: true if batches now take clearly less
static bool outdated(llama_context * ctx, llama_batch & batch, const std::vector<llama_token> & tokens, const server_draft_measures & cur) {
    auto * mem = llama_get_memory(ctx);
    for (size_t i = 0; i < cur.cost_n.size() && cur.cost_n[i] <= 8; ++i) {
        if (cur.cost_n[i] != 1 && cur.cost_n[i] != 8) {
            continue;
        }
        float best = INFINITY;
        for (int rep = 0; rep < 4; ++rep) {
            const int64_t t0 = ggml_time_us();
            if (!decode(ctx, batch, tokens, 0, cur.cost_n[i])) {
                return true;
            }
            best = std::min<float>(best, ggml_time_us() - t0);
            llama_memory_clear(mem, true);
        }
        if (best < 0.75f*cur.cost_us[i]) {
            return true;
        }
    }
    return false;
}

server_draft_measures server_draft_measure(llama_context * ctx, int32_t n_max, int64_t long_us, const std::string & file, const std::string & key) {
    server_draft_measures res;

    const int64_t t_start = ggml_time_us();

    n_max = std::min(n_max, 64);

    // tokens by chance, always the same ones
    std::mt19937 rng(1);
    std::vector<llama_token> tokens(N_LONG + 64);
    const int32_t n_vocab = llama_vocab_n_tokens(llama_model_get_vocab(llama_get_model(ctx)));
    for (auto & t : tokens) {
        t = rng() % n_vocab;
    }

    llama_batch batch = llama_batch_init(64, 0, 1);

    const bool cached = !file.empty() && server_draft_measures_load(file, key, res) && !outdated(ctx, batch, tokens, res);
    if (!cached) {
        res = {};
        measure_cost (ctx, batch, tokens, n_max, res);
        measure_exact(ctx, batch, tokens, n_max, long_us, res);
        if (!file.empty() && !res.cost_n.empty() && !server_draft_measures_save(file, key, res)) {
            DRM_WRN("cannot write %s\n", file.c_str());
        }
    }

    llama_batch_free(batch);
    llama_memory_clear(llama_get_memory(ctx), true);
    llama_perf_context_reset(ctx);

    std::string costs;
    for (size_t i = 0; i < res.cost_n.size(); ++i) {
        costs += string_format(" %d: %.0f", res.cost_n[i], res.cost_us[i]);
    }
    DRM_INF("batch cost (us):%s; exact: %zu of %zu sizes, up to %d tokens, noise %.2e; %s in %.2f s\n", costs.c_str(),
            res.exact_n.size(), res.tested_n.size(), res.exact_max(), res.noise, cached ? "known" : "measured", (ggml_time_us() - t_start)/1e6);

    return res;
}
