// the draft link of llama-server [aded]: trees, top-k, frames, and the link over a real socket with a peer that does what
// it should, what it should not, or nothing at all
//
//   test-draft-link [-s seed] [-v] [-o tree,topk,measure,frames,link]
// the last line is "N passed, N failed"

#include "server-draft-frames.h"
#include "server-draft-link.h"
#include "server-draft-measure.h"
#include "server-draft-topk.h"
#include "server-draft-tree.h"

#include "common.h"
#include "ggml.h"
#include "log.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <new>
#include <numeric>
#include <random>
#include <set>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#ifndef _WIN32
#    include <dirent.h>
#    include <fcntl.h>
#    include <poll.h>
#    include <sys/resource.h>
#    include <sys/socket.h>
#    include <sys/stat.h>
#    include <sys/un.h>
#    include <unistd.h>
#endif

using json = nlohmann::json;

// what is allocated, to see that nobody asks for absurd amounts
static std::atomic<size_t> n_allocated { 0 }; // all of it together
static std::atomic<size_t> n_largest   { 0 }; // at once

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) // these bring their own

#ifdef __GNUC__
#    define NOINLINE __attribute__((noinline)) // GCC takes the pair below for a mismatch where it inlines one of them
#else
#    define NOINLINE
#endif

NOINLINE void * operator new(size_t size) {
    n_allocated += size;
    for (size_t n = n_largest; n < size && !n_largest.compare_exchange_weak(n, size);) {}
    void * res = malloc(size ? size : 1);
    if (!res) {
        throw std::bad_alloc();
    }
    return res;
}

NOINLINE void operator delete(void * p) noexcept         { free(p); }
NOINLINE void operator delete(void * p, size_t) noexcept { free(p); }

#endif

struct test_state {
    int  n_pass  = 0;
    int  n_fail  = 0;
    bool verbose = false;

    std::mt19937 rng;

    bool check(bool ok, const std::string & name) {
        if (ok) {
            n_pass++;
        } else {
            n_fail++;
        }
        if (!ok || verbose) {
            printf("%s: %s\n", ok ? "ok" : "FAIL", name.c_str());
            fflush(stdout);
        }
        return ok;
    }

    void equal(const std::string & got, const std::string & expected, const std::string & name) {
        check(got == expected, name + ": got \"" + got + "\", expected \"" + expected + "\"");
    }

    int32_t random(int32_t a, int32_t b) { return std::uniform_int_distribution<int32_t>(a, b)(rng); }
};

//
// trees
//

struct tree_input {
    std::vector<int32_t> tokens;
    std::vector<int32_t> parents;

    int32_t size() const { return tokens.size(); }

    std::string set(server_draft_tree & tree, int32_t n_vocab) const { return tree.set(tokens.data(), parents.data(), size(), n_vocab); }

    // tokens from the root to the node; empty: the way leads out of range, or nowhere
    std::vector<int32_t> path(int32_t i) const {
        std::vector<int32_t> res;
        for (; i != -1; i = parents[i]) {
            if (i < 0 || i >= size() || (int32_t) res.size() > size()) {
                return {};
            }
            res.insert(res.begin(), tokens[i]);
        }
        return res;
    }
};

// nodes in any order
static tree_input random_tree(test_state & t, int32_t n, int32_t n_vocab) {
    std::vector<int32_t> place(n);
    std::iota(place.begin(), place.end(), 0);
    std::shuffle(place.begin(), place.end(), t.rng);

    const int32_t reach = t.random(1, n + 1); // small: deep trees

    tree_input res;
    res.tokens .resize(n);
    res.parents.resize(n);
    for (int32_t i = 0; i < n; ++i) {
        const int32_t p = t.random(std::max(-1, i - reach), i - 1);
        res.tokens [place[i]] = t.random(0, n_vocab - 1);
        res.parents[place[i]] = p < 0 ? -1 : place[p];
    }
    return res;
}

static std::vector<int32_t> path_of(const server_draft_tree & tree, int32_t i) {
    return tree_input { tree.tokens, tree.parents }.path(i);
}

// what must hold for every tree that was made of the input
static bool tree_is(const server_draft_tree & tree, const tree_input & input) {
    const int32_t n = tree.size();

    if (n != (int32_t) tree.parents.size() || n != (int32_t) tree.depth.size() || n != (int32_t) tree.order.size()) {
        return false;
    }

    std::set<int32_t> seen;
    for (int32_t i = 0; i < n; ++i) {
        const int32_t j = tree.order[i];
        const auto path = path_of(tree, i);

        bool ok = true;
        ok = ok && tree.parents[i] >= -1 && tree.parents[i] < i;
        ok = ok && j >= 0 && j < input.size() && seen.insert(j).second;
        ok = ok && path == input.path(j) && (int32_t) path.size() == tree.depth[i];
        ok = ok && (i == 0 || tree.depth[i - 1] <= tree.depth[i]);
        ok = ok && (i == 0 || tree.depth[i - 1] <  tree.depth[i] || tree.order[i - 1] < j);
        if (!ok) {
            return false;
        }
    }
    return true;
}

static void test_tree_messages(test_state & t) {
    const auto message = [](const tree_input & input) {
        server_draft_tree tree;
        tree.tokens = { 7 };
        const std::string res = input.set(tree, 100);
        return tree.empty() == !res.empty() || input.size() == 0 ? res : "a tree that was refused is not cleared";
    };

    t.equal(message({ { }, { } }),                          "", "empty tree");
    t.equal(message({ { 0, 99 }, { -1, 0 } }),              "", "first and last token");
    t.equal(message({ { 5, 100 }, { -1, 0 } }),             "tokens[1] = 100 is not in the vocabulary (100 tokens)", "token above");
    t.equal(message({ { -1 }, { -1 } }),                    "tokens[0] = -1 is not in the vocabulary (100 tokens)", "token below");
    t.equal(message({ { INT32_MIN }, { -1 } }),             "tokens[0] = -2147483648 is not in the vocabulary (100 tokens)", "least token");
    t.equal(message({ { 1, 2, 3, 4 }, { -1, 0, 1, 9 } }),   "parents[3] = 9 is out of range (tree has 4 nodes)", "parent above");
    t.equal(message({ { 1, 2 }, { -1, 2 } }),               "parents[1] = 2 is out of range (tree has 2 nodes)", "parent just above");
    t.equal(message({ { 1, 2 }, { -2, 0 } }),               "parents[0] = -2 is out of range (tree has 2 nodes)", "parent below");
    t.equal(message({ { 1 }, { 0 } }),                      "parents[0] = 0 leads into a cycle", "own parent");
    t.equal(message({ { 1, 2, 3 }, { -1, 2, 1 } }),         "parents[1] = 2 leads into a cycle", "cycle of two");
    t.equal(message({ { 1, 2, 3 }, { 1, 2, 1 } }),          "parents[0] = 1 leads into a cycle", "into a cycle");
}

static void test_tree_random(test_state & t) {
    int n_bad_set = 0, n_bad_child = 0, n_bad_chain = 0, n_bad_trim = 0, n_bad_merge = 0, n_bad_refuse = 0, n_refused = 0;

    for (int it = 0; it < 3000; ++it) {
        const auto input = random_tree(t, t.random(0, 40), t.random(1, 6));

        server_draft_tree tree;
        const bool ok = input.set(tree, 6).empty() && tree.size() == input.size() && tree_is(tree, input);
        n_bad_set += !ok;
        if (!ok) {
            continue;
        }

        for (int32_t node = -1; node < tree.size(); ++node) {
            for (int32_t token = 0; token < 6; ++token) {
                int32_t expected = -1;
                for (int32_t i = tree.size() - 1; i >= 0; --i) {
                    expected = tree.parents[i] == node && tree.tokens[i] == token ? i : expected;
                }
                n_bad_child += tree.child(node, token) != expected;
            }
        }

        const std::set<int32_t> depths(tree.depth.begin(), tree.depth.end());
        n_bad_chain += tree.is_chain() != ((int32_t) depths.size() == tree.size());

        server_draft_tree cut = tree;
        const int32_t depth_max = t.random(-1, 12);
        const int32_t n_max     = t.random(-1, 45);
        cut.trim(depth_max, n_max);
        const int32_t n_fit = std::count_if(tree.depth.begin(), tree.depth.end(), [&](int32_t d) { return d <= depth_max; });
        n_bad_trim += cut.size() != std::min(n_fit, std::max(0, n_max)) || !tree_is(cut, input);

        const auto other = random_tree(t, t.random(0, 20), 6);
        server_draft_tree more;
        other.set(more, 6);
        server_draft_tree both = tree;
        both.merge(more);
        tree_input sum = input;
        for (int32_t i = 0; i < other.size(); ++i) {
            sum.tokens .push_back(other.tokens[i]);
            sum.parents.push_back(other.parents[i] < 0 ? -1 : other.parents[i] + input.size());
        }
        n_bad_merge += both.size() != sum.size() || !tree_is(both, sum);

        // one parent or token put wrong: refused if, and only if, some node has no way to the root
        tree_input hurt = input;
        if (hurt.size() > 0) {
            hurt.parents[t.random(0, hurt.size() - 1)] = t.random(-3, hurt.size() + 1);
            hurt.tokens [t.random(0, hurt.size() - 1)] = t.random(-1, 6);
        }
        bool good = true;
        for (int32_t i = 0; i < hurt.size(); ++i) {
            good = good && !hurt.path(i).empty() && hurt.tokens[i] >= 0 && hurt.tokens[i] < 6;
        }
        server_draft_tree res;
        const bool taken = hurt.set(res, 6).empty();
        n_refused    += !taken;
        n_bad_refuse += taken != good || (taken ? !tree_is(res, hurt) : !res.empty());
    }

    t.check(n_bad_set    == 0, string_format("set: %d of 3000 random trees differ", n_bad_set));
    t.check(n_bad_child  == 0, string_format("child: %d differ", n_bad_child));
    t.check(n_bad_chain  == 0, string_format("is_chain: %d differ", n_bad_chain));
    t.check(n_bad_trim   == 0, string_format("trim: %d differ", n_bad_trim));
    t.check(n_bad_merge  == 0, string_format("merge: %d differ", n_bad_merge));
    t.check(n_bad_refuse == 0 && n_refused > 100, string_format("damaged trees: %d differ, %d refused", n_bad_refuse, n_refused));
}

//
// top-k
//

// relative error of a probability, against double precision
static constexpr double PROB_TOL = 1e-5;
static constexpr double PROB_ABS = 1e-30;

static void check_topk(test_state & t, const std::vector<float> & x, int32_t k, double & err_max, const std::string & name) {
    const int32_t n = x.size();

    server_draft_topk topk;
    std::vector<int32_t> ids(k, -1);
    std::vector<float>   probs(k, -1.0f);
    topk.get(x.data(), n, k, ids.data(), probs.data());

    // not a number: last
    const auto less = [&](int32_t a, int32_t b) {
        if (std::isnan(x[a]) || std::isnan(x[b])) {
            return std::isnan(x[a]) == std::isnan(x[b]) ? a < b : std::isnan(x[b]);
        }
        return x[a] > x[b] || (x[a] == x[b] && a < b);
    };
    std::vector<int32_t> sorted(n);
    std::iota(sorted.begin(), sorted.end(), 0);
    std::sort(sorted.begin(), sorted.end(), less);

    if (!t.check(std::equal(ids.begin(), ids.end(), sorted.begin()), name + ": ids")) {
        return;
    }

    const auto gap = topk.gap(x.data(), n);
    const bool two = n > 1 && std::isfinite(x[sorted[0]]) && std::isfinite(x[sorted[1]]);
    t.check(two ? gap.gap == x[sorted[0]] - x[sorted[1]] && x[gap.first] == x[sorted[0]] && x[gap.second] == x[sorted[1]] && gap.first != gap.second :
            gap.gap == INFINITY, name + ": gap");

    const double max = x[sorted[0]];
    if (!std::isfinite(max)) {
        bool ok = true;
        for (const float p : probs) {
            ok = ok && p >= 0.0f && p <= 1.0f;
        }
        t.check(ok, name + ": probabilities without a finite logit");
        return;
    }

    double sum = 0.0;
    for (const float v : x) {
        sum += std::isnan(v) ? 0.0 : std::exp(v - max);
    }
    double err = 0.0;
    for (int32_t i = 0; i < k; ++i) {
        const double p = std::isnan(x[ids[i]]) ? 0.0 : std::exp(x[ids[i]] - max)/sum;
        if (std::fabs(probs[i] - p) > PROB_ABS || !(probs[i] >= 0.0f)) {
            err = std::max(err, std::fabs(probs[i] - p)/std::max(p, PROB_ABS));
        }
    }
    err_max = std::max(err_max, err);
    t.check(err <= PROB_TOL, string_format("%s: probabilities, relative error %.2e", name.c_str(), err));

    const double lse = max + std::log(sum);
    t.check(std::fabs(topk.logsumexp() - lse) <= PROB_TOL + 2e-7*std::fabs(lse), string_format("%s: logsumexp %.8g, expected %.8g", name.c_str(), topk.logsumexp(), lse));
}

// the pool gives what get() gives, however many threads and rows there are
static void test_topk_pool(test_state & t) {
    static constexpr int32_t N = 262144;
    static constexpr int32_t K = 12;

    std::normal_distribution<float> normal;
    std::vector<float> x(N*16);
    for (auto & v : x) {
        v = 3.0f*normal(t.rng);
    }
    std::vector<int32_t> ids0(16*K);
    std::vector<float>   probs0(16*K);
    server_draft_topk topk;
    for (int i = 0; i < 16; ++i) {
        topk.get(x.data() + (int64_t) N*i, N, K, ids0.data() + i*K, probs0.data() + i*K);
    }

    for (int32_t n_threads = 1; n_threads <= 4; ++n_threads) {
        server_draft_topk_pool pool(n_threads);
        pool.wait(); // nothing to wait for
        int64_t best = INT64_MAX;
        bool    same = true;
        for (int rep = 0; rep < 20; ++rep) {
            const int32_t n_rows = rep < 10 ? 16 : t.random(1, 16);
            std::vector<int32_t> ids(n_rows*K);
            std::vector<float>   probs(n_rows*K);
            std::vector<server_draft_topk_pool::job> jobs;
            for (int i = 0; i < n_rows; ++i) {
                jobs.push_back({ x.data() + (int64_t) N*i, N, K, ids.data() + i*K, probs.data() + i*K });
            }
            const int64_t t0 = ggml_time_us();
            pool.start(std::move(jobs));
            pool.wait();
            if (n_rows == 16) {
                best = std::min(best, ggml_time_us() - t0);
            }
            same = same && std::equal(ids.begin(), ids.end(), ids0.begin()) && std::equal(probs.begin(), probs.end(), probs0.begin());
        }
        t.check(same, string_format("pool of %d threads: the same as one by one", n_threads));
        printf("topk: 16 rows of %d, k = %d, %d threads: %.2f ms\n", N, K, n_threads, best/1e3);
    }
}

static void test_topk(test_state & t) {
    const std::vector<int32_t> sizes = { 1, 2, 3, 17, 63, 64, 65, 127, 128, 129, 191, 1000, 4095, 4096, 4097, 32000, 65537, 151936, 262144, 300001 };

    struct kind_t {
        const char * name;
        std::function<float(int32_t i, int32_t n)> get;
    };

    std::normal_distribution<float> normal;
    const std::vector<kind_t> kinds = {
        { "normal",           [&](int32_t, int32_t)     { return 3.0f*normal(t.rng); } },
        { "few values",       [&](int32_t, int32_t)     { return (float) t.random(0, 3); } },
        { "all equal",        [&](int32_t, int32_t)     { return -1.25f; } },
        { "ascending",        [&](int32_t i, int32_t n) { return 20.0f*i/n; } },
        { "descending",       [&](int32_t i, int32_t n) { return 20.0f - 20.0f*i/n; } },
        { "one peak",         [&](int32_t i, int32_t n) { return i == n - 1 ? 80.0f : normal(t.rng); } },
        { "large",            [&](int32_t, int32_t)     { return 1e4f + 5.0f*normal(t.rng); } },
        { "large negative",   [&](int32_t, int32_t)     { return -3e4f + 5.0f*normal(t.rng); } },
        { "far apart",        [&](int32_t, int32_t)     { return 1e30f*normal(t.rng); } },
        { "mostly -INFINITY", [&](int32_t i, int32_t)   { return i % 97 == 0 ? normal(t.rng) : -INFINITY; } },
        { "one finite",       [&](int32_t i, int32_t n) { return i == n/2 ? 1.0f : -INFINITY; } },
        { "all -INFINITY",    [&](int32_t, int32_t)     { return -INFINITY; } },
        { "one INFINITY",     [&](int32_t i, int32_t n) { return i == n/3 ? INFINITY : normal(t.rng); } },
        { "some NaN",         [&](int32_t i, int32_t)   { return i % 3 == 0 ? NAN : normal(t.rng); } },
        { "mostly NaN",       [&](int32_t i, int32_t n) { return i == n - 1 ? 0.5f : NAN; } },
        { "all NaN",          [&](int32_t, int32_t)     { return NAN; } },
    };

    double err_max = 0.0;
    for (const auto & kind : kinds) {
        for (const int32_t n : sizes) {
            std::vector<float> x(n);
            for (int32_t i = 0; i < n; ++i) {
                x[i] = kind.get(i, n);
            }
            std::set<int32_t> ks = { 1, 2, 8, 12, 63, 64 };
            if (n <= 4097) {
                ks.insert(n);
            }
            for (const int32_t k : ks) {
                if (k <= n) {
                    check_topk(t, x, k, err_max, string_format("topk %s n = %d k = %d", kind.name, n, k));
                }
            }
        }
    }
    printf("topk: largest relative error of a probability %.2e, allowed are %.0e\n", err_max, PROB_TOL);

    test_topk_pool(t);
}

//
// frames
//

using bytes = std::vector<uint8_t>;

static bytes body_of(const json & j) {
    return json::to_msgpack(j);
}

static json bin_of(const std::vector<int32_t> & v) {
    const uint8_t * p = (const uint8_t *) v.data(); // note: the tests run on little-endian machines
    return json::binary(bytes(p, p + v.size()*sizeof(int32_t)));
}

static json draft_slot(int32_t slot, const std::vector<int32_t> & tokens, const std::vector<int32_t> & parents, int32_t sleep = 0) {
    json res = { { "slot", slot }, { "tokens", bin_of(tokens) }, { "parents", bin_of(parents) } };
    if (sleep != 0) {
        res["sleep"] = sleep;
    }
    return res;
}

static json draft_of(int64_t seq, const std::vector<json> & slots) {
    return { { "type", "draft" }, { "seq", seq }, { "slots", slots } };
}

static json hello_of(int64_t top_k = 4, int64_t version = SERVER_DRAFT_VERSION) {
    return { { "type", "hello" }, { "version", version }, { "top_k", top_k } };
}

static std::string parse(const bytes & body, server_draft_frame & frame) {
    return frame.parse(body.data(), body.size());
}

static std::string parse(const json & j) {
    server_draft_frame frame;
    return parse(body_of(j), frame);
}

// one value, as another implementation of MessagePack reads it
static json decode(const bytes & frame) {
    return json::from_msgpack(frame.begin() + 4, frame.end(), true, false);
}

static void test_writer(test_state & t) {
    const auto one = [&](const std::function<void(server_draft_writer & w)> & put) {
        server_draft_writer w;
        put(w);
        const bytes frame = w.finish();
        const size_t size = frame[0] | (frame[1] << 8) | (frame[2] << 16) | ((size_t) frame[3] << 24);
        return size == frame.size() - 4 ? decode(frame) : json("wrong length");
    };

    for (const int64_t v : { (int64_t) 0, (int64_t) 1, (int64_t) 127, (int64_t) 128, (int64_t) 255, (int64_t) 65536, (int64_t) -1, (int64_t) -32, (int64_t) -33,
            (int64_t) INT32_MAX, (int64_t) INT32_MAX + 1, (int64_t) INT32_MIN, (int64_t) INT32_MIN - 1, INT64_MAX, INT64_MIN }) {
        t.check(one([&](auto & w) { w.num(v); }) == json(v), string_format("writer: num %lld", (long long) v));

        // all encodings that the other side may choose
        const bytes body = body_of(json(v));
        server_draft_reader rd(body.data(), body.size());
        int64_t got = 0;
        t.check(rd.num(got) && got == v && rd.p == rd.end, string_format("reader: num %lld", (long long) v));
    }
    for (const size_t n : { 0, 1, 31, 32, 255, 256, 65535, 65536, 70000 }) {
        const std::string s(n, 'x');
        t.check(one([&](auto & w) { w.str(s); }) == json(s), string_format("writer: str of %zu", n));

        const bytes body = body_of(json(s));
        server_draft_reader rd(body.data(), body.size());
        std::string got;
        t.check(rd.str(got) && got == s && rd.p == rd.end, string_format("reader: str of %zu", n));

        const std::vector<int32_t> v(n, -7);
        t.check(one([&](auto & w) { w.map(1); w.kv("v", v); })["v"] == bin_of(v), string_format("writer: bin of %zu", 4*n));

        const bytes bin = body_of(bin_of(v));
        server_draft_reader rb(bin.data(), bin.size());
        std::vector<int32_t> got_v;
        t.check(rb.i32s(got_v) && got_v == v && rb.p == rb.end, string_format("reader: bin of %zu", 4*n));
    }
    for (const uint32_t n : { 0, 1, 15, 16, 65535 }) {
        t.check(one([&](auto & w) { w.array(n); for (uint32_t i = 0; i < n; ++i) { w.num(i); } }).size() == n, string_format("writer: array of %u", n));
        t.check(one([&](auto & w) { w.map(n); for (uint32_t i = 0; i < n; ++i) { w.kv(std::to_string(i).c_str(), (int64_t) i); } }).size() == n, string_format("writer: map of %u", n));
    }
    t.check(one([&](auto & w) { w.real(0.7); }) == json(0.7), "writer: real");
    t.check(one([&](auto & w) { w.boolean(true);  }) == json(true),  "writer: true");
    t.check(one([&](auto & w) { w.boolean(false); }) == json(false), "writer: false");
}

static std::vector<bytes> valid_bodies() {
    json more = draft_of(3, { draft_slot(0, { 1 }, { -1 }) });
    more["slots"][0]["score"] = { 0.5, nullptr, true, "x", json::array({ 1, json::object({ { "a", 1 } }) }) };
    more["later"] = { { "n", -70000 }, { "b", bin_of({ 1, 2 }) }, { "s", std::string(300, 'y') }, { "l", std::vector<int>(20, 1) } };

    return {
        body_of(hello_of()),
        body_of(hello_of(64, 2)),
        body_of(draft_of(1, {})),
        body_of(draft_of(70000, { draft_slot(0, { 5, 6, 7 }, { -1, 0, 0 }), draft_slot(3, {}, {}, 16) })),
        body_of(more),
    };
}

static void test_parse(test_state & t) {
    server_draft_frame frame;

    t.equal(parse(body_of(hello_of(12)), frame), "", "hello");
    t.check(frame.kind == server_draft_frame::HELLO && frame.version == SERVER_DRAFT_VERSION && frame.top_k == 12, "hello: contents");

    t.equal(parse(body_of(draft_of(7, { draft_slot(2, { 9, -8 }, { -1, 0 }, 5), draft_slot(-1, {}, {}, 5000) })), frame), "", "draft");
    t.check(frame.kind == server_draft_frame::DRAFT && frame.seq == 7 && frame.slots.size() == 2, "draft: contents");
    t.check(frame.slots[0].slot == 2 && frame.slots[0].sleep == 5 && frame.slots[0].tokens == std::vector<int32_t>({ 9, -8 }) && frame.slots[0].parents == std::vector<int32_t>({ -1, 0 }), "draft: first slot");
    t.check(frame.slots[1].slot == -1 && frame.slots[1].sleep == 1024 && frame.slots[1].tokens.empty(), "draft: second slot");

    for (const auto & body : valid_bodies()) {
        t.equal(parse(body, frame), "", "valid frame");

        int n_taken = 0;
        for (size_t n = 0; n < body.size(); ++n) {
            const bytes cut(body.begin(), body.begin() + n); // note: of its own, so that a sanitizer sees reads beyond the end
            n_taken += parse(cut, frame).empty();
        }
        t.check(n_taken == 0, string_format("truncated frames: %d of %zu taken", n_taken, body.size()));

        bytes longer = body;
        longer.push_back(0xc0);
        t.equal(parse(longer, frame), "1 bytes after the end of the map", "frame with one byte more");
    }

    // another version may have other keys
    t.equal(parse({ { "type", "hello" }, { "version", 2 } }), "", "hello of another version");

    for (const json & j : std::vector<json> {
            nullptr, 1, "hello", json::array(), json::object(),
            { { "type", "hello" } }, { { "type", "hello" }, { "version", SERVER_DRAFT_VERSION } }, { { "type", "hello" }, { "top_k", 1 } },
            { { "type", "hello" }, { "version", "1" }, { "top_k", 1 } }, { { "type", "hello" }, { "version", 1 }, { "top_k", 1.5 } },
            { { "type", 1 }, { "version", 1 }, { "top_k", 1 } }, { { "type", "welcome" }, { "version", 1 }, { "top_k", 1 } },
            { { "type", "draft" }, { "seq", 1 } }, { { "type", "draft" }, { "slots", json::array() } },
            { { "type", "draft" }, { "seq", nullptr }, { "slots", json::array() } }, { { "type", "draft" }, { "seq", 1 }, { "slots", json::object() } },
            draft_of(1, { 1 }), draft_of(1, { json::object() }), draft_of(1, { { { "slot", 1 }, { "tokens", bin_of({}) } } }),
            { { "type", "draft" }, { "seq", UINT64_MAX }, { "slots", json::array() } } }) {
        t.check(!parse(j).empty(), "refused: " + j.dump());
    }
    for (const char * key : { "slot", "tokens", "parents", "sleep" }) {
        json slot = draft_slot(0, { 1 }, { -1 }, 1);
        slot[key] = true;
        t.check(!parse(draft_of(1, { slot })).empty(), string_format("refused: %s of a wrong type", key));
    }
    for (const size_t n : { 1, 2, 3, 5 }) {
        json slot = draft_slot(0, { 1 }, { -1 });
        slot["tokens"] = json::binary(bytes(n, 0));
        t.check(!parse(draft_of(1, { slot })).empty(), string_format("refused: tokens of %zu bytes", n));
    }
    json slot = draft_slot(0, {}, {});
    slot["slot"] = (int64_t) 1 << 40;
    t.check(!parse(draft_of(1, { slot })).empty(), "refused: slot beyond int32");
}

// what hostile bodies may cost: time, and memory as a multiple of their size
static void check_cost(test_state & t, const bytes & body, const std::string & name) {
    server_draft_frame frame;

    const int64_t t0 = ggml_time_us();
    const size_t  n0 = n_allocated;
    const std::string err = parse(body, frame);
    const size_t  n1 = n_allocated;
    const int64_t us = ggml_time_us() - t0;

    t.check(!err.empty() && us < 2000000 && n1 - n0 <= 16*body.size() + 65536,
            string_format("%s: \"%s\", %.1f ms, %zu bytes allocated", name.c_str(), err.c_str(), us/1e3, n1 - n0));
}

static void test_hostile_bodies(test_state & t) {
    const size_t n = SERVER_DRAFT_FRAME_MAX_IN;

    const auto under = [&](const bytes & start, uint8_t fill, size_t size) {
        bytes res = start;
        res.resize(std::max(size, start.size()), fill);
        return res;
    };
    const bytes unknown = { 0x81, 0xa1, 'x' };                                        // {"x": ...
    const bytes slots   = { 0x81, 0xa5, 's', 'l', 'o', 't', 's' };                    // {"slots": ...
    const bytes in_slot = { 0x81, 0xa5, 's', 'l', 'o', 't', 's', 0x91, 0x81, 0xa1, 'x' }; // {"slots": [{"x": ...

    for (const auto & start : { bytes(), unknown, slots, in_slot }) {
        for (const int fill : { 0x81, 0x8f, 0x91, 0x9f, 0xdc, 0xdd, 0xde, 0xdf, 0xff, 0x00, 0xc1, 0xd4, 0xa0 }) {
            check_cost(t, under(start, fill, n), string_format("1 MiB of %02x after %zu bytes", fill, start.size()));
        }
        for (const int type : { 0xc6, 0xdb, 0xdd, 0xdf, 0xc9 }) {
            bytes body = start;
            for (const int b : { type, 0xff, 0xff, 0xff, 0xff }) {
                body.push_back(b);
            }
            check_cost(t, body, string_format("%02x that claims 2^32 after %zu bytes", type, start.size()));
            check_cost(t, under(body, 0x00, n), string_format("%02x that claims 2^32, with 1 MiB, after %zu bytes", type, start.size()));
        }
    }

    // as many slots as fit
    const bytes small = body_of(draft_slot(0, {}, {}));
    bytes many = { 0x81, 0xa5, 's', 'l', 'o', 't', 's', 0xdd, 0, 0, 0, 0 };
    uint32_t n_many = 0;
    for (; many.size() + small.size() <= n; ++n_many) {
        many.insert(many.end(), small.begin(), small.end());
    }
    for (int i = 0; i < 4; ++i) {
        many[8 + i] = n_many >> (8*(3 - i));
    }
    check_cost(t, many, string_format("%u slots", n_many));
}

static void test_fuzz(test_state & t, int n_iter) {
    const auto seeds = valid_bodies();

    int n_taken = 0, n_differ = 0, n_large = 0;

    const int64_t t0 = ggml_time_us();
    for (int it = 0; it < n_iter; ++it) {
        bytes body;
        if (it % 8 == 0) {
            body.resize(t.random(0, 300));
            for (auto & b : body) {
                b = t.random(0, 255);
            }
        } else {
            body = seeds[t.random(0, seeds.size() - 1)];
            for (int n = t.random(1, 4); n > 0; --n) {
                const int32_t at = t.random(0, body.size());
                switch (t.random(0, 4)) {
                    case 0: if (at < (int32_t) body.size()) { body[at] = t.random(0, 255); } break;
                    case 1: if (at < (int32_t) body.size()) { body[at] ^= 1 << t.random(0, 7); } break;
                    case 2: body.insert(body.begin() + at, t.random(0, 255)); break;
                    case 3: if (at < (int32_t) body.size()) { body.erase(body.begin() + at); } break;
                    case 4: {
                        const auto & other = seeds[t.random(0, seeds.size() - 1)];
                        const int32_t from = t.random(0, other.size() - 1);
                        body.insert(body.begin() + at, other.begin() + from, other.begin() + std::min<int32_t>(other.size(), from + t.random(1, 24)));
                    } break;
                }
            }
        }

        server_draft_frame frame;
        const size_t n0 = n_allocated;
        const bool taken = parse(body, frame).empty();
        n_large += n_allocated - n0 > 64*body.size() + 4096;

        if (taken) {
            // what is taken is MessagePack, and says what it was taken for
            n_taken++;
            json j;
            try {
                j = json::from_msgpack(body);
            } catch (const json::parse_error & e) {
                n_differ += e.id != 113; // keys that are no strings, in a value that is skipped: MessagePack, but not JSON
                continue;
            }
            const bool same = j.is_object() && j.value("type", "") == (frame.kind == server_draft_frame::HELLO ? "hello" : "draft") &&
                (frame.kind == server_draft_frame::HELLO ? j["version"] == frame.version : j["seq"] == frame.seq);
            n_differ += !same;
        }
    }
    t.check(n_taken > n_iter/100, string_format("fuzz: %d of %d frames taken", n_taken, n_iter));
    t.check(n_differ == 0, string_format("fuzz: %d of %d taken frames mean something else", n_differ, n_taken));
    t.check(n_large  == 0, string_format("fuzz: %d frames made the parser allocate too much", n_large));
    printf("frames: %d fuzzed in %.1f s, %d taken\n", n_iter, (ggml_time_us() - t0)/1e6, n_taken);
}

#ifndef _WIN32

//
// the link
//

// for what must happen at all; generous, since sanitizers and busy machines are slow
static constexpr int     WAIT_MS  = 20000;
// for what must not wait for the peer
static constexpr int64_t PROMPT_US = 1000000;

// a budget that is never used up, and one that always is
static constexpr int32_t BUDGET_LONG  = 10000000;
static constexpr int32_t BUDGET_SHORT = 1000;

static constexpr int32_t N_VOCAB   = 1000;
static constexpr int32_t N_SLOTS   = 4;
static constexpr int32_t MAX_NODES = 8;

static bool wait_until(const std::function<bool()> & done) {
    const int64_t t_end = ggml_time_us() + WAIT_MS*1000ll;
    while (!done()) {
        if (ggml_time_us() > t_end) {
            return false;
        }
        std::this_thread::yield();
    }
    return true;
}

static int connect_to(const std::string & path) {
    sockaddr_un addr = {};
    addr.sun_family = AF_UNIX;
    strncpy(addr.sun_path, path.c_str(), sizeof(addr.sun_path) - 1);

    const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (fd >= 0 && connect(fd, (const sockaddr *) &addr, sizeof(addr)) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

// the other end
struct test_peer {
    int   fd     = -1;
    bool  closed = false; // by the engine
    bytes in;

    explicit test_peer(const std::string & path) : fd(connect_to(path)) {}
    ~test_peer() { hang_up(); }

    test_peer(const test_peer &) = delete;
    test_peer & operator=(const test_peer &) = delete;

    void hang_up() {
        if (fd >= 0) {
            close(fd);
        }
        fd = -1;
    }

    bool send_bytes(const bytes & data) {
        size_t off = 0;
        while (off < data.size()) {
            const ssize_t n = ::send(fd, data.data() + off, data.size() - off, MSG_NOSIGNAL);
            if (n <= 0) {
                return false;
            }
            off += n;
        }
        return true;
    }

    static bytes frame(const bytes & body) {
        const uint32_t n = body.size();
        bytes res = { (uint8_t) n, (uint8_t) (n >> 8), (uint8_t) (n >> 16), (uint8_t) (n >> 24) };
        res.insert(res.end(), body.begin(), body.end());
        return res;
    }

    bool send(const json & j) { return send_bytes(frame(body_of(j))); }

    // the next frame; null: none came in time, or the link was closed
    json next(int ms = WAIT_MS) {
        const int64_t t_end = ggml_time_us() + ms*1000ll;
        while (true) {
            if (in.size() >= 4) {
                const size_t size = in[0] | (in[1] << 8) | (in[2] << 16) | ((size_t) in[3] << 24);
                if (in.size() >= 4 + size) {
                    const json res = json::from_msgpack(in.begin() + 4, in.begin() + 4 + size);
                    in.erase(in.begin(), in.begin() + 4 + size);
                    return res;
                }
            }
            pollfd p = { fd, POLLIN, 0 };
            const int64_t us_left = t_end - ggml_time_us();
            if (closed || us_left <= 0 || poll(&p, 1, us_left/1000 + 1) <= 0) {
                return nullptr;
            }
            uint8_t buf[65536];
            const ssize_t n = recv(fd, buf, sizeof(buf), 0);
            if (n <= 0) {
                closed = true; // note: after a reset, too
            } else {
                in.insert(in.end(), buf, buf + n);
            }
        }
    }

    // the type of the next frame, with the code of an error
    std::string next_type() {
        const json j = next();
        return j.is_null() ? closed ? "closed" : "nothing" : j["type"] == "error" ? "error " + j["code"].get<std::string>() : j["type"].get<std::string>();
    }

    // the frame of the type that comes next, whatever comes before
    json until(const std::string & type) {
        while (true) {
            const json j = next();
            if (j.is_null() || j["type"] == type) {
                return j;
            }
        }
    }

    // returns once the engine has handled what was sent before: an answer to nothing is late
    bool sync() {
        if (!send(draft_of(-1, {}))) {
            return false;
        }
        const json j = next();
        return !j.is_null() && j["type"] == "error" && j["code"] == "late";
    }

    bool shake_hands(int64_t top_k = 4) {
        return fd >= 0 && next_type() == "hello" && send(hello_of(top_k)) && sync();
    }
};

static std::vector<int32_t> i32s(const json & j) {
    const auto & b = j.get_binary();
    std::vector<int32_t> res(b.size()/4);
    std::copy(b.begin(), b.end(), (uint8_t *) res.data());
    return res;
}

static std::vector<float> f32s(const json & j) {
    const auto & b = j.get_binary();
    std::vector<float> res(b.size()/4);
    std::copy(b.begin(), b.end(), (uint8_t *) res.data());
    return res;
}

struct test_dir {
    std::string dir;

    test_dir() {
        char name[] = "/tmp/test-draft-link-XXXXXX";
        dir = mkdtemp(name) ? name : "";
    }
    ~test_dir() { rmdir(dir.c_str()); }

    std::string path(const char * name = "s") const { return dir + "/" + name; }
};

//
// measurements at start
//

static void test_cost_fit(test_state & t) {
    std::vector<int32_t> n;
    std::vector<float>   us;

    server_draft_cost_fit({ { 1, { 10, 11, 30 } }, { 2, { 12, 12, 50 } }, { 4, { 20, 21, 22 } } }, n, us);
    t.check(n == std::vector<int32_t>({ 1, 2, 4 }) && us == std::vector<float>({ 10, 12, 20 }), "cost: what disturbs a few samples does not count");

    // 2 and 3 are within their spread of each other, 1 and 4 are not of anything
    server_draft_cost_fit({ { 1, { 10, 10, 11, 11, 12 } }, { 2, { 18, 20, 21, 22, 23 } }, { 3, { 17, 18, 19, 20, 21 } }, { 4, { 30, 30, 30, 30, 30 } } }, n, us);
    t.check(us == std::vector<float>({ 10, 19, 19, 30 }), "cost: noise in the wrong order is smoothed");

    server_draft_cost_fit({ { 3, { 30, 30, 30, 31 } }, { 4, { 20, 20, 20, 21 } } }, n, us);
    t.check(us == std::vector<float>({ 30, 20 }), "cost: a real step down stays");

    server_draft_cost_fit({ { 1, { 10 } }, { 2, {} }, { 3, { 12 } } }, n, us);
    t.check(n == std::vector<int32_t>({ 1 }), "cost: nothing after what was not measured");

    int32_t n_up = 0;
    for (int rep = 0; rep < 200; ++rep) {
        std::vector<server_draft_cost_sample> samples;
        for (const int32_t size : { 1, 2, 3, 4, 6, 8, 12, 16 }) {
            server_draft_cost_sample cur = { size, {} };
            for (int i = 0; i < 9; ++i) {
                cur.us.push_back(1000 + t.random(0, 100));
            }
            samples.push_back(cur);
        }
        server_draft_cost_fit(samples, n, us);
        n_up += std::is_sorted(us.begin(), us.end());
    }
    t.check(n_up >= 190, string_format("cost: of flat costs with noise %d of 200 tables ascend", n_up));
}

static void test_measures_file(test_state & t) {
    test_dir dir;
    const std::string file = dir.path() + ".json";

    server_draft_measures a;
    a.cost_n   = { 1, 2, 4 };
    a.cost_us  = { 10.5f, 11.0f, 20.0f };
    a.tested_n = { 2, 3, 4, 6 };
    a.exact_n  = { 2, 3, 6 };
    a.noise    = 0.125f;
    t.check(a.exact_max() == 3 && server_draft_measures().exact_max() == 1, "measures: exact up to the first that is not");
    t.check(!a.exact_up_to(6) && !server_draft_measures().exact_up_to(2) && server_draft_measures().exact_up_to(1), "measures: what was not tested is not exact");
    server_draft_measures all;
    all.tested_n = { 2, 3, 4, 6 };
    all.exact_n  = { 2, 3, 4, 6 };
    t.check(all.exact_up_to(6) && all.exact_up_to(7) && !all.exact_up_to(8), "measures: exact up to what was tested");

    server_draft_measures b;
    t.check(!server_draft_measures_load(file, "x", b), "measures: no file");
    t.check(server_draft_measures_save(file, "x", a) && server_draft_measures_load(file, "x", b), "measures: saved and loaded");
    t.check(b.cost_n == a.cost_n && b.cost_us == a.cost_us && b.tested_n == a.tested_n && b.exact_n == a.exact_n && b.noise == a.noise, "measures: the same");
    t.check(!server_draft_measures_load(file, "y", b), "measures: another key");

    a.noise = 0.5f;
    t.check(server_draft_measures_save(file, "y", a) && server_draft_measures_save(file, "x", a), "measures: two keys");
    t.check(server_draft_measures_load(file, "x", b) && b.noise == 0.5f && server_draft_measures_load(file, "y", b), "measures: the newer of a key");
    for (int i = 0; i < 100; ++i) {
        server_draft_measures_save(file, "k" + std::to_string(i), a);
    }
    std::ifstream in(file);
    t.check(json::parse(in).size() == 32, "measures: the file does not grow for ever");

    const std::string head = "[{\"key\":\"x\",\"cost_n\":[1,2],\"cost_us\":";
    const std::string tail = ",\"tested_n\":[],\"exact_n\":[],\"noise\":0}]";
    for (const std::string & text : std::vector<std::string> { "", "{", "[", "null", "[1]", "{\"key\":\"x\"}", "[{\"key\":\"x\"}]", std::string(2 << 20, ' '), std::string("\0\xff[", 3),
            head + "[1]" + tail, head + "[1,-2]" + tail, head + "[1,1e99]" + tail, head + "[\"a\",2]" + tail }) {
        std::ofstream(file, std::ios::trunc) << text;
        t.check(!server_draft_measures_load(file, "x", b), "measures: damaged: " + text.substr(0, 60));
        t.check(server_draft_measures_save(file, "x", a) && server_draft_measures_load(file, "x", b), "measures: made anew after: " + text.substr(0, 60));
    }
    std::ofstream(file, std::ios::trunc) << head + "[1,2]" + tail;
    t.check(server_draft_measures_load(file, "x", b), "measures: the undamaged one of them");
    std::remove(file.c_str());
    t.check(!server_draft_measures_save(dir.path() + "/no/such/folder.json", "x", a), "measures: no such folder");
}

static server_draft_info test_info(bool tree = true) {
    server_draft_info info;
    info.model      = "a model";
    info.vocab_hash = "0123456789abcdef";
    info.n_vocab    = N_VOCAB;
    info.n_slots    = N_SLOTS;
    info.max_nodes  = MAX_NODES;
    info.tree       = tree;
    info.max_chain  = tree ? MAX_NODES : 3;
    info.top_k      = 8;
    info.cost_n     = { 1, 2, 4 };
    info.cost_us    = { 10.0f, 11.5f, 13.0f };
    info.tested_n   = { 2, 3, 4 };
    info.exact_n    = { 2, 4 };
    info.near_tie   = 0.25f;
    return info;
}

// a link that listens, with short ways to drive it like the decode loop does
struct test_link {
    test_dir          dir;
    server_draft_link link;

    explicit test_link(int32_t timeout_us = BUDGET_LONG, server_draft_info info = test_info(), int64_t hold_us = 0) : link(std::move(info), timeout_us, hold_us) {
        const std::string err = link.listen(dir.path());
        if (!err.empty()) {
            fprintf(stderr, "%s: %s\n", dir.path().c_str(), err.c_str());
            exit(1);
        }
    }

    std::string path() const { return dir.path(); }

    void begin(int32_t slot, int32_t id, const std::vector<int32_t> & tokens) { link.begin(slot, id, "", tokens, {}); }

    static server_draft_step_slot step_of(int32_t slot, const std::vector<int32_t> & accepted, int32_t room = 100, bool draft = true) {
        server_draft_step_slot res;
        res.slot     = slot;
        res.accepted = accepted;
        res.nodes    = { 1 };
        res.parents  = { -1 };
        res.path     = { 0 };
        res.room     = room;
        res.draft    = draft;
        return res;
    }

    void step(int32_t slot, const std::vector<int32_t> & accepted, int32_t room = 100, bool draft = true) {
        link.step({ step_of(slot, accepted, room, draft) }, 5000, 1);
    }
};

// all of a good exchange: the link works
static bool works(test_link & l) {
    test_peer peer(l.path());
    if (!peer.shake_hands()) {
        return false;
    }
    l.begin(3, 77, { 1, 2, 3 });
    l.step(3, { 4 });
    const json step = peer.until("step");
    if (step.is_null() || step["ask"] != true || !peer.send(draft_of(step["seq"], { draft_slot(3, { 8, 9 }, { -1, 0 }) }))) {
        return false;
    }
    const bool res = l.link.take(3).tokens == std::vector<int32_t>({ 8, 9 });
    l.link.end(3, "stop");
    l.link.flush();
    const bool ended = peer.until("end")["id"] == 77;
    peer.hang_up();
    return res && ended && wait_until([&]() { return !l.link.connected(); });
}

static void test_listen(test_state & t) {
    test_dir dir;
    const std::string path = dir.path();

    const auto listen = [&](const std::string & p) { return server_draft_link(test_info(), 0).listen(p); };

    struct stat st;
    {
        server_draft_link link(test_info(), 0);
        t.equal(link.listen(path), "", "listen");
        t.check(stat(path.c_str(), &st) == 0 && S_ISSOCK(st.st_mode) && (st.st_mode & 07777) == 0600, "listen: a socket of mode 0600");
        t.check(!link.connected() && link.top_k() == 0, "listen: nobody is connected");

        t.equal(listen(path), "another server listens there", "listen: the socket of a live server");
        t.check(stat(path.c_str(), &st) == 0, "listen: the socket of a live server is left alone");
    }
    t.check(stat(path.c_str(), &st) != 0, "listen: the socket is removed at the end");

    // what a server that was killed leaves
    sockaddr_un addr = {};
    addr.sun_family = AF_UNIX;
    strncpy(addr.sun_path, path.c_str(), sizeof(addr.sun_path) - 1);
    const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    t.check(bind(fd, (const sockaddr *) &addr, sizeof(addr)) == 0, "stale socket");
    close(fd);
    {
        server_draft_link link(test_info(), 0);
        t.equal(link.listen(path), "", "listen: a stale socket is replaced");
        t.check(test_peer(path).next_type() == "hello", "listen: and can be connected to");

        // somebody took the path over
        unlink(path.c_str());
        std::ofstream(path) << "mine";
    }
    t.check(stat(path.c_str(), &st) == 0, "listen: what is not its own is not removed");
    t.equal(listen(path), "the path exists and is not a socket", "listen: a regular file");
    std::string text;
    std::ifstream(path) >> text;
    t.equal(text, "mine", "listen: the file is left alone");
    unlink(path.c_str());

    {
        // of a folder it takes a path that is its own
        const std::string own = dir.path((std::to_string(getpid()) + ".sock").c_str());
        server_draft_link link(test_info(), 0);
        t.equal(link.listen(dir.dir), "", "listen: a folder");
        t.check(test_peer(own).next_type() == "hello", "listen: a folder holds the server's own socket");
    }
    t.equal(listen(""), "the path has 0 characters, a Unix socket allows 1 to 107", "listen: no path");
    t.equal(listen("/tmp/" + std::string(103, 'x')), "the path has 108 characters, a Unix socket allows 1 to 107", "listen: path too long");
    t.equal(listen(dir.path("none/s")), strerror(ENOENT), "listen: no such folder");
}

static void test_hello(test_state & t) {
    test_link l;
    test_peer peer(l.path());

    const json hello = peer.next();
    const auto info = test_info();
    const json expected = {
        { "type", "hello" }, { "version", SERVER_DRAFT_VERSION }, { "model", info.model }, { "n_vocab", info.n_vocab },
        { "vocab_hash", info.vocab_hash }, { "n_slots", info.n_slots }, { "max_nodes", info.max_nodes }, { "tree", true },
        { "max_chain", info.max_chain }, { "top_k", info.top_k }, { "cost_n", bin_of(info.cost_n) }, { "cost_us", hello["cost_us"] },
        { "tested_n", bin_of(info.tested_n) }, { "exact_n", bin_of(info.exact_n) }, { "near_tie", 0.25 },
    };
    t.check(hello == expected, "hello: all of it, and no more");
    t.check(f32s(hello["cost_us"]) == info.cost_us, "hello: cost_us");
    t.check(!l.link.connected(), "hello: not connected before the peer's hello");

    peer.send(hello_of(5));
    t.check(peer.sync() && l.link.connected() && l.link.top_k() == 5, "hello: the peer's top_k");

    peer.hang_up();
    t.check(wait_until([&]() { return !l.link.connected(); }) && l.link.top_k() == 0, "hello: no peer, no top_k");

    test_peer greedy(l.path());
    t.check(greedy.shake_hands(64) && l.link.top_k() == info.top_k, "hello: the engine's own limit of top_k");
}

static void test_begin(test_state & t) {
    test_link l;
    test_peer peer(l.path());
    t.check(peer.shake_hands(), "begin: connected");

    const auto expect = [&](const json & j, int32_t slot, int32_t id, size_t keep, const std::vector<int32_t> & tokens, const std::string & name) {
        t.check(!j.is_null() && j["type"] == "begin" && j["slot"] == slot && j["id"] == id && j["keep"] == keep && i32s(j["tokens"]) == tokens, "begin: " + name + ": " + (j.is_null() ? "nothing" : j.dump()));
    };

    server_draft_sampling sampling;
    sampling.greedy  = true;
    sampling.temp    = 0.5f;
    sampling.grammar = true;
    sampling.draft   = false;
    l.link.begin(0, 10, "a scope", { 1, 2, 3 }, sampling);
    l.step(0, { 4 });
    const json first = peer.next();
    expect(first, 0, 10, 0, { 1, 2, 3 }, "first request");
    t.check(first["scope"] == "a scope" && first["sampling"] == json({ { "greedy", true }, { "temp", 0.5 }, { "grammar", true }, { "draft", false } }), "begin: scope and sampling");
    t.equal(peer.next_type(), "step", "begin: before the first step");

    l.step(0, { 5, 6 });
    t.equal(peer.next_type(), "step", "begin: once per request");

    l.link.end(0, "limit");
    l.link.end(0, "limit");
    l.link.flush();
    const json end = peer.next();
    t.check(end == json({ { "type", "end" }, { "slot", 0 }, { "id", 10 }, { "reason", "limit" } }), "end: contents");
    l.link.flush();
    t.check(peer.sync(), "end: sent once");

    // the next turn of a chat, another slot, another prompt with the same start, part of what is there, nothing in common
    l.begin(0, 11, { 1, 2, 3, 4, 5, 6, 20, 21 });
    l.step(0, { 22 });
    expect(peer.until("begin"), 0, 11, 6, { 20, 21 }, "next turn");
    l.begin(1, 12, { 1, 2, 3 });
    l.step(1, { 4 });
    expect(peer.until("begin"), 1, 12, 0, { 1, 2, 3 }, "other slot");
    l.begin(0, 13, { 1, 2, 3, 9 });
    l.step(0, { 22 });
    expect(peer.until("begin"), 0, 13, 3, { 9 }, "same start");
    l.begin(0, 14, { 1, 2 });
    l.step(0, { 3 });
    expect(peer.until("begin"), 0, 14, 2, { }, "shorter prompt");
    l.begin(0, 15, { 1, 2, 3 });
    l.step(0, { 4 });
    expect(peer.until("begin"), 0, 15, 3, { }, "what was generated is the prompt");
    l.begin(0, 16, { 7 });
    l.step(0, { 8 });
    expect(peer.until("begin"), 0, 16, 0, { 7 }, "nothing in common");
    t.equal(peer.next_type(), "step", "begin: step");

    // order: the step that ends a request comes before its end, that before the next begin of the slot
    l.link.end(0, "eos");
    l.begin(1, 17, { 1 });
    l.step(0, { 9 });
    t.equal(peer.next_type(), "step", "end: after the step that ends the request");
    t.equal(peer.next_type(), "end", "end: after the step");
    l.step(1, { 2 });
    l.link.end(1, "cancel");
    l.begin(1, 18, { 3 });
    l.step(1, { 4 });
    std::string order;
    for (int i = 0; i < 5; ++i) {
        order += peer.next_type() + " ";
    }
    t.equal(order, "begin step end begin step ", "end: before the slot's next begin");

    // a request that ends before its first step was never begun, as far as the peer knows
    l.link.end(1, "eos");
    l.link.flush();
    t.equal(peer.next_type(), "end", "end: flush");
    l.begin(1, 19, { 5 });
    l.link.end(1, "cancel");
    l.link.flush();
    l.link.end(2, "cancel");
    l.link.flush();
    t.check(peer.sync(), "end: not without begin");
}

static void test_step(test_state & t) {
    test_link l(12345);
    test_peer peer(l.path());
    t.check(peer.shake_hands(), "step: connected");

    l.begin(0, 1, { 1 });
    l.begin(2, 2, { 1 });

    server_draft_step_slot a;
    a.slot     = 0;
    a.k        = 2;
    a.room     = 7;
    a.draft    = true;
    a.accepted = { 5, 6 };
    a.nodes    = { 1, 5, 9 };
    a.parents  = { -1, 0, 0 };
    a.path     = { 0, 1 };
    a.ids      = { 5, 9, 6, 7, 8, 9 };
    a.probs    = { 0.5f, 0.25f, 0.9f, 0.05f, 0.125f, 1e-30f };
    auto b = test_link::step_of(2, { 3 }, 0);

    l.link.step({ a, b }, 5000, 4);
    const json j = peer.until("step");
    t.check(j.size() == 8 && j["spent_us"] == 0 && j["seq"] == 1 && j["us"] == 5000 && j["n_batch"] == 4 && j["ask"] == true && j["budget_us"] == 12345 && j["slots"].size() == 2, "step: " + j.dump().substr(0, 80));
    const json expected = {
        { "slot", 0 }, { "accepted", bin_of(a.accepted) }, { "nodes", bin_of(a.nodes) }, { "parents", bin_of(a.parents) }, { "path", bin_of(a.path) },
        { "k", 2 }, { "ids", bin_of(a.ids) }, { "probs", j["slots"][0]["probs"] }, { "room", 7 }, { "draft", true },
    };
    t.check(j["slots"][0] == expected && f32s(j["slots"][0]["probs"]) == a.probs, "step: first slot");
    t.check(j["slots"][1]["slot"] == 2 && j["slots"][1]["room"] == 0 && i32s(j["slots"][1]["ids"]).empty(), "step: second slot");

    const auto asks = [&](const std::vector<server_draft_step_slot> & slots) {
        l.link.step(slots, 5000, 1);
        return peer.until("step")["ask"] == true;
    };
    t.check(!asks({ test_link::step_of(0, { 1 }, 0) }),                                          "step: no room, not asked");
    t.check(!asks({ test_link::step_of(0, { 1 }, 9, false) }),                                   "step: no draft wanted, not asked");
    t.check( asks({ test_link::step_of(0, { 1 }, 9, false), test_link::step_of(2, { 1 }, 1) }), "step: asked for the other slot");
    t.check( asks({ test_link::step_of(0, { 1 }, 1) }),                                          "step: asked");

    // a draft that does not come takes the whole budget
    t.check(l.link.take(0).empty(), "step: no draft");
    l.step(0, { 1 });
    const json late = peer.until("step");
    t.check(late["seq"] == 6, "step: seq counts up");
    t.check(late["spent_us"] >= 12000 && late["spent_us"] < 1000000, "step: what the exchange before took: " + late["spent_us"].dump());
    t.check(!asks({ test_link::step_of(0, { 1 }, 0) }), "step: not asked");
    l.step(0, { 1 });
    t.check(peer.until("step")["spent_us"] == 0, "step: where nothing is asked, no time is spent");

    // the budget follows the measured time
    test_link m(-1);
    test_peer other(m.path());
    t.check(other.shake_hands(), "step: connected again");
    const auto budget = [&](int64_t us) {
        m.link.step({ test_link::step_of(0, { 1 }, 0) }, us, 1);
        return other.until("step")["budget_us"].get<int64_t>();
    };
    m.begin(0, 1, { 1 });
    t.check(budget(0)       ==  1000, "step: budget before anything was measured");
    t.check(budget(20000)   ==  5000, "step: budget is a quarter");
    t.check(budget(0)       ==  5000, "step: a mixed step does not count");
    t.check(budget(5000000) == 20000, "step: budget is at most 20 ms");
}

static void test_drafts(test_state & t) {
    test_link l;
    test_peer peer(l.path());
    t.check(peer.shake_hands(), "draft: connected");
    l.begin(0, 1, { 1 });
    l.begin(1, 2, { 1 });
    l.begin(2, 3, { 1 });

    // slots 0 and 1 are asked for drafts, slot 2 may not have one, slot 3 does not generate
    const auto ask = [&](test_link & l, test_peer & peer) {
        l.link.step({ test_link::step_of(0, { 5 }), test_link::step_of(1, { 5 }), test_link::step_of(2, { 5 }, 9, false) }, 5000, 3);
        return peer.until("step")["seq"].get<int64_t>();
    };

    int64_t seq = ask(l, peer);
    peer.send(draft_of(seq, { draft_slot(0, { 11, 12, 13, 14 }, { 1, -1, 0, -1 }), draft_slot(1, { 21, 22 }, { -1, 0 }) }));
    const auto tree = l.link.take(0);
    t.check(tree.tokens == std::vector<int32_t>({ 12, 14, 11, 13 }) && tree.parents == std::vector<int32_t>({ -1, -1, 0, 2 }) && tree.depth == std::vector<int32_t>({ 1, 1, 2, 3 }), "draft: sorted by depth");
    t.check(l.link.take(1).tokens == std::vector<int32_t>({ 21, 22 }), "draft: of the second slot");
    t.check(l.link.take(0).empty() && l.link.take(2).empty() && l.link.take(3).empty(), "draft: given once, and to nobody else");

    seq = ask(l, peer);
    peer.send(draft_of(seq, {}));
    t.check(l.link.take(0).empty() && l.link.take(1).empty(), "draft: no draft");

    // what was not taken does not last
    seq = ask(l, peer);
    peer.send(draft_of(seq, { draft_slot(0, { 1 }, { -1 }) }));
    t.check(peer.sync(), "draft: not taken");
    seq = ask(l, peer);
    peer.send(draft_of(seq, { draft_slot(1, { 2 }, { -1 }) }));
    t.check(l.link.take(0).empty() && l.link.take(1).tokens == std::vector<int32_t>({ 2 }), "draft: not the one of the step before");

    struct fault {
        const char * name;
        json         slot;
        const char * code;
        const char * message;
    };
    const std::vector<fault> faults = {
        { "lengths",        draft_slot(0, { 1, 2 }, { -1 }),         "bad_draft", "2 tokens, but 1 parents" },
        { "parent above",   draft_slot(0, { 1, 2 }, { -1, 2 }),      "bad_draft", "parents[1] = 2 is out of range (tree has 2 nodes)" },
        { "parent below",   draft_slot(0, { 1 }, { -2 }),            "bad_draft", "parents[0] = -2 is out of range (tree has 1 nodes)" },
        { "cycle",          draft_slot(0, { 1, 2 }, { 1, 0 }),       "bad_draft", "parents[0] = 1 leads into a cycle" },
        { "token above",    draft_slot(0, { N_VOCAB }, { -1 }),      "bad_draft", "tokens[0] = 1000 is not in the vocabulary (1000 tokens)" },
        { "token below",    draft_slot(0, { -1 }, { -1 }),           "bad_draft", "tokens[0] = -1 is not in the vocabulary (1000 tokens)" },
        { "too many nodes", draft_slot(0, std::vector<int32_t>(9, 1), std::vector<int32_t>(9, -1)), "bad_draft", "9 nodes, only 8 are left of max_nodes = 8" },
        { "not asked for",  draft_slot(2, { 1 }, { -1 }),            "no_slot",   "slot 2 takes no draft now" },
        { "not generating", draft_slot(3, { 1 }, { -1 }),            "no_slot",   "slot 3 takes no draft now" },
        { "no such slot",   draft_slot(N_SLOTS, { 1 }, { -1 }),      "no_slot",   "slot 4 takes no draft now" },
        { "negative slot",  draft_slot(-1, { 1 }, { -1 }),           "no_slot",   "slot -1 takes no draft now" },
        { "huge slot",      draft_slot(INT32_MAX, { 1 }, { -1 }),    "no_slot",   "slot 2147483647 takes no draft now" },
    };
    for (const auto & f : faults) {
        seq = ask(l, peer);
        peer.send(draft_of(seq, { f.slot, draft_slot(1, { 33 }, { -1 }) }));
        const json e = peer.next();
        t.check(!e.is_null() && e["type"] == "error" && e["code"] == f.code && e["message"] == f.message, string_format("draft: %s: %s", f.name, e.dump().c_str()));
        t.check(e.is_null() || f.slot["slot"] < 0 || e["slot"] == f.slot["slot"], string_format("draft: %s: names the slot", f.name));
        t.check(l.link.take(0).empty(), string_format("draft: %s: ignored", f.name));
        t.check(l.link.take(1).tokens == std::vector<int32_t>({ 33 }), string_format("draft: %s: the other slot's is good", f.name));
    }

    // the limit of nodes is for all slots together; a slot is drafted for once
    seq = ask(l, peer);
    peer.send(draft_of(seq, { draft_slot(0, { 1, 2, 3, 4, 5 }, { -1, -1, -1, -1, -1 }), draft_slot(1, { 1, 2, 3, 4 }, { -1, -1, -1, -1 }) }));
    t.check(peer.next()["message"] == "4 nodes, only 3 are left of max_nodes = 8", "draft: nodes of all slots");
    t.check(l.link.take(0).size() == 5 && l.link.take(1).empty(), "draft: the first slot's nodes");
    seq = ask(l, peer);
    peer.send(draft_of(seq, { draft_slot(0, { 1 }, { -1 }), draft_slot(0, { 2 }, { -1 }) }));
    t.equal(peer.next_type(), "error no_slot", "draft: a slot twice");
    t.check(l.link.take(0).tokens == std::vector<int32_t>({ 1 }), "draft: the first of two");

    // a frame for more slots than there are gets one answer, however many
    seq = ask(l, peer);
    peer.send(draft_of(seq, std::vector<json>(20000, draft_slot(0, {}, {}))));
    t.equal(peer.next_type(), "error bad_draft", "draft: too many slots");
    t.check(peer.sync(), "draft: too many slots, one answer");
    t.check(l.link.take(0).empty() && l.link.connected(), "draft: too many slots, ignored");

    // one draft per step, for the step that is awaited
    seq = ask(l, peer);
    peer.send(draft_of(seq - 1, { draft_slot(0, { 1 }, { -1 }) }));
    t.equal(peer.next_type(), "error late", "draft: for the step before");
    peer.send(draft_of(seq + 1, { draft_slot(0, { 1 }, { -1 }) }));
    t.equal(peer.next_type(), "error late", "draft: for the step to come");
    peer.send(draft_of(0, { draft_slot(0, { 1 }, { -1 }) }));
    t.equal(peer.next_type(), "error late", "draft: for step 0");
    peer.send(draft_of(seq, { draft_slot(0, { 2 }, { -1 }) }));
    peer.send(draft_of(seq, { draft_slot(0, { 3 }, { -1 }) }));
    t.equal(peer.next_type(), "error late", "draft: a second one");
    t.check(l.link.take(0).tokens == std::vector<int32_t>({ 2 }), "draft: the first one counts");

    l.step(0, { 5 }, 0);
    peer.until("step");
    for (const int64_t s : { (int64_t) 0, seq + 1 }) {
        peer.send(draft_of(s, { draft_slot(0, { 1 }, { -1 }) }));
        t.equal(peer.next_type(), "error late", string_format("draft: none was asked for, seq = %lld", (long long) s));
    }
    t.check(l.link.take(0).empty(), "draft: none was asked for, ignored");

    // chains only
    test_link c(BUDGET_LONG, test_info(false));
    test_peer chain(c.path());
    t.check(chain.shake_hands(), "chain: connected");
    c.begin(0, 1, { 1 });
    c.begin(1, 1, { 1 });
    c.begin(2, 1, { 1 });
    seq = ask(c, chain);
    chain.send(draft_of(seq, { draft_slot(0, { 3, 2, 1 }, { 1, 2, -1 }), draft_slot(1, { 1, 2 }, { -1, -1 }) }));
    t.check(chain.next()["message"] == "only chains of at most 3 nodes are allowed", "chain: a branch");
    t.check(c.link.take(0).tokens == std::vector<int32_t>({ 1, 2, 3 }) && c.link.take(1).empty(), "chain: nodes in any order");
    seq = ask(c, chain);
    chain.send(draft_of(seq, { draft_slot(0, { 1, 2, 3, 4 }, { -1, 0, 1, 2 }) }));
    t.equal(chain.next_type(), "error bad_draft", "chain: too long");
    t.check(c.link.take(0).empty(), "chain: too long, ignored");
}

static void test_sleep(test_state & t) {
    test_link l;
    test_peer peer(l.path());
    t.check(peer.shake_hands(), "sleep: connected");
    l.begin(0, 1, { 1 });
    l.begin(1, 2, { 1 });

    const auto step = [&](const std::vector<int32_t> & slots) {
        std::vector<server_draft_step_slot> cur;
        for (const int32_t slot : slots) {
            cur.push_back(test_link::step_of(slot, { 5 }));
        }
        l.link.step(cur, 5000, slots.size());
        return peer.until("step");
    };

    json j = step({ 0 });
    peer.send(draft_of(j["seq"], { draft_slot(0, {}, {}, 3) }));
    t.check(l.link.take(0).empty(), "sleep: falls asleep");
    std::string asked;
    for (int i = 0; i < 5; ++i) {
        j = step({ 0 });
        asked += j["ask"] == true ? "1" : "0";
        if (j["ask"] == true) {
            peer.send(draft_of(j["seq"], {}));
        }
        l.link.take(0);
    }
    t.equal(asked, "00011", "sleep: not asked for three steps");

    // another slot is awake: the sleeper may have a draft all the same
    j = step({ 0, 1 });
    peer.send(draft_of(j["seq"], { draft_slot(0, { 1 }, { -1 }, 100) }));
    t.check(l.link.take(0).size() == 1 && l.link.take(1).empty(), "sleep: the last draft before");
    t.check(step({ 0 })["ask"] == false, "sleep: asleep");
    j = step({ 0, 1 });
    t.check(j["ask"] == true, "sleep: asked for the other slot");
    peer.send(draft_of(j["seq"], { draft_slot(0, { 1, 2 }, { -1, 0 }), draft_slot(1, { 3 }, { -1 }) }));
    t.check(l.link.take(0).size() == 2 && l.link.take(1).size() == 1, "sleep: a draft wakes it up");
    j = step({ 0 });
    t.check(j["ask"] == true, "sleep: awake");

    // a new request is awake
    peer.send(draft_of(j["seq"], { draft_slot(0, {}, {}, 1024) }));
    l.link.take(0);
    t.check(step({ 0 })["ask"] == false, "sleep: asleep again");
    l.link.end(0, "stop");
    l.begin(0, 3, { 1 });
    t.check(step({ 0 })["ask"] == true, "sleep: a new request is awake");
}

static void test_wait(test_state & t) {
    test_link l;
    const int64_t t0 = ggml_time_us();
    t.check(!l.link.wait_connected(50) && ggml_time_us() - t0 >= 50000, "wait: nobody comes");
    std::thread late([&]() {
        std::this_thread::sleep_for(std::chrono::milliseconds(50));
        test_peer peer(l.path());
        peer.shake_hands();
        wait_until([&]() { return l.link.connected(); });
        std::this_thread::sleep_for(std::chrono::milliseconds(200));
    });
    t.check(l.link.wait_connected(WAIT_MS), "wait: for who comes later");
    late.join();
}

static void test_hold(test_state & t) {
    // long enough for no test machine to be too slow
    test_link l(BUDGET_LONG, test_info(), 3600*1000000ll);
    test_peer peer(l.path());
    t.check(peer.shake_hands(), "hold: connected");
    l.begin(0, 1, { 1 });

    l.step(0, { 5 });
    json j = peer.until("step");
    t.check(j["ask"] == true, "hold: what asks is not held");
    peer.send(draft_of(j["seq"], { draft_slot(0, {}, {}, 1000) }));
    l.link.take(0);

    int64_t seq = j["seq"].get<int64_t>();
    for (int round = 0; round < 3; ++round) {
        for (int i = 1; i < 24; ++i) {
            l.step(0, { 30*round + i });
        }
        t.check(peer.next(100).is_null(), "hold: 23 steps that ask for nothing wait");
        l.step(0, { 30*round + 24 });
        bool all = true;
        for (int i = 1; i <= 24; ++i) {
            j   = peer.next();
            all = all && j["type"] == "step" && j["ask"] == false && j["seq"] == ++seq && i32s(j["slots"][0]["accepted"]) == std::vector<int32_t>{ 30*round + i };
        }
        t.check(all, "hold: the 24th brings them along, in order");
    }

    // a step that asks takes along what waits
    l.step(0, { 40 });
    l.begin(1, 2, { 1 });
    l.step(1, { 41 });
    t.check(i32s(peer.next()["slots"][0]["accepted"]) == std::vector<int32_t>{ 40 }, "hold: what waited comes first");
    t.equal(peer.next_type(), "begin", "hold: then the new request");
    j = peer.next();
    t.check(j["ask"] == true && j["seq"] == seq + 2, "hold: and the step that asks");
    peer.send(draft_of(j["seq"], { draft_slot(1, {}, {}, 1000) }));
    l.link.take(1);

    l.step(0, { 42 });
    l.step(0, { 43 });
    l.link.end(0, "stop");
    l.step(0, { 44 });
    std::string types;
    for (int i = 0; i < 4; ++i) {
        types += peer.next_type() + " ";
    }
    t.equal(types, "step step step end ", "hold: the end of a request goes out at once, behind them");

    // a link whose peer goes holds nothing for the next one
    l.step(1, { 45 });
    t.check(peer.next(100).is_null(), "hold: one more waits");

    // the I/O thread, awake for another reason, leaves it where it is
    {
        test_peer second(l.path());
        t.equal(second.next_type(), "error busy", "hold: a second peer is turned away");
    }
    t.check(peer.next(100).is_null(), "hold: it waits still");

    peer.hang_up();
    t.check(wait_until([&]() { return !l.link.connected(); }), "hold: gone");
    test_peer next(l.path());
    t.check(next.shake_hands(), "hold: a new peer");
    l.step(1, { 46 });
    t.equal(next.next_type(), "begin", "hold: gets its own begin");
    j = next.next();
    t.check(j["ask"] == true && i32s(j["slots"][0]["accepted"]) == std::vector<int32_t>{ 46 }, "hold: and its own step, which asks: the sleep was the other's");
}

static void test_late(test_state & t) {
    test_link l(BUDGET_SHORT);
    test_peer peer(l.path());
    t.check(peer.shake_hands(), "late: connected");
    l.begin(0, 1, { 1 });

    const auto step = [&](test_peer & p) {
        l.step(0, { 5 });
        return p.until("step");
    };
    const auto miss = [&](test_peer & p) {
        const json j = step(p);
        const int64_t t0 = ggml_time_us();
        const bool empty = l.link.take(0).empty();
        return j["ask"] == true && empty && ggml_time_us() - t0 < PROMPT_US;
    };

    json j = step(peer);
    t.check(l.link.take(0).empty(), "late: runs plain");
    peer.send(draft_of(j["seq"], { draft_slot(0, { 1 }, { -1 }) }));
    t.equal(peer.next_type(), "error late", "late: the answer comes late");
    t.check(l.link.take(0).empty(), "late: and is ignored");

    // two in a row by now, then one in time
    t.check(miss(peer), "late: asked again");
    bool in_time = false;
    for (int i = 0; i < 200 && !in_time; ++i) {
        // note: the budget is short, a busy machine may miss it
        l.link.step({ test_link::step_of(0, { 5 }) }, 5000, 1);
        const json s = peer.until("step");
        if (s["ask"] == true) {
            peer.send(draft_of(s["seq"], { draft_slot(0, { 1 }, { -1 }) }));
            peer.send(draft_of(-1, {}));
            in_time = peer.until("error")["message"].get<std::string>().find("step -1,") != std::string::npos;
        }
        in_time = l.link.take(0).size() == 1 && in_time;
    }
    t.check(in_time, "late: one in time");

    std::string asked;
    for (int i = 0; i < 3; ++i) {
        asked += miss(peer) ? "1" : "0";
    }
    for (int i = 0; i < 17; ++i) {
        j = step(peer);
        asked += j["ask"] == true ? "1" : "0";
        if (i < 16) {
            const int64_t t0 = ggml_time_us();
            l.link.take(0);
            asked += ggml_time_us() - t0 > PROMPT_US ? "!" : "";
        }
    }
    t.equal(asked, "11100000000000000001", "late: three in a row, then 16 steps in peace");

    // the pause is not for the next peer
    for (int i = 0; i < 3; ++i) {
        miss(peer);
    }
    peer.hang_up();
    t.check(wait_until([&]() { return !l.link.connected(); }), "late: gone");
    test_peer next(l.path());
    t.check(next.shake_hands() && step(next)["ask"] == true, "late: a new peer is asked at once");
}

static void test_refused(test_state & t) {
    test_link l;

    const auto raw = [](uint32_t size, const bytes & rest = {}) {
        bytes res = { (uint8_t) size, (uint8_t) (size >> 8), (uint8_t) (size >> 16), (uint8_t) (size >> 24) };
        res.insert(res.end(), rest.begin(), rest.end());
        return res;
    };
    const auto frame = [](const json & j) { return test_peer::frame(body_of(j)); };

    struct fault {
        const char * name;
        bool         greet; // send a good hello first
        bytes        data;
        const char * code;
    };
    const std::vector<fault> faults = {
        { "garbage",             false, test_peer::frame({ 0xc1, 0xff, 0x00 }),        "bad_frame" },
        { "HTTP",                false, { 'G', 'E', 'T', ' ', '/', '\r', '\n' },       "too_large" },
        { "unknown type",        true,  frame({ { "type", "purge" } }),                "bad_frame" },
        { "garbage later",       true,  test_peer::frame(bytes(1000, 0x91)),           "bad_frame" },
        { "draft before hello",  false, frame(draft_of(1, {})),                        "bad_frame" },
        { "second hello",        true,  frame(hello_of()),                             "bad_frame" },
        { "top_k 0",             false, frame(hello_of(0)),                            "bad_frame" },
        { "top_k 65",            false, frame(hello_of(65)),                           "bad_frame" },
        { "top_k -1",            false, frame(hello_of(-1)),                           "bad_frame" },
        { "length 0",            true,  raw(0),                                        "too_large" },
        { "length 1 MiB + 1",    true,  raw(SERVER_DRAFT_FRAME_MAX_IN + 1),            "too_large" },
        { "length 2^32 - 1",     false, raw(UINT32_MAX, bytes(5000, 1)),               "too_large" },
        { "version 0",           false, frame(hello_of(4, 0)),                         "version"   },
        { "version 2",           false, frame(hello_of(4, SERVER_DRAFT_VERSION + 1)),  "version"   },
        { "version 2, new keys", false, frame({ { "type", "hello" }, { "version", 2 }, { "k", 1 } }), "version" },
    };

    for (const auto & f : faults) {
        test_peer peer(l.path());
        t.equal(peer.next_type(), "hello", string_format("refused: %s: hello", f.name));
        if (f.greet) {
            t.check(peer.send(hello_of()) && peer.sync(), string_format("refused: %s: connected", f.name));
        }
        peer.send_bytes(f.data);
        t.equal(peer.next_type(), std::string("error ") + f.code, string_format("refused: %s", f.name));
        t.equal(peer.next_type(), "closed", string_format("refused: %s: the link is closed", f.name));
        l.begin(0, 1, { 1 });
        l.step(0, { 5 });
        t.check(l.link.take(0).empty() && !l.link.connected(), string_format("refused: %s: runs plain", f.name));
    }
    t.check(works(l), "refused: a good peer is welcome");

    // the largest frame that is allowed
    test_peer peer(l.path());
    t.check(peer.shake_hands(), "largest frame: connected");
    json large = draft_of(-1, {});
    large["fill"] = std::string(SERVER_DRAFT_FRAME_MAX_IN - body_of(large).size() - 10, 'x');
    bytes body = body_of(large);
    const size_t n_less = SERVER_DRAFT_FRAME_MAX_IN - body.size();
    large["fill"] = large["fill"].get<std::string>() + std::string(n_less, 'x');
    body = body_of(large);
    t.check(body.size() == SERVER_DRAFT_FRAME_MAX_IN && peer.send_bytes(test_peer::frame(body)), "largest frame: sent");
    t.equal(peer.next_type(), "error late", "largest frame: read");

    // in single bytes, and several at once
    for (const uint8_t b : test_peer::frame(body_of(draft_of(-1, {})))) {
        peer.send_bytes({ b });
    }
    t.equal(peer.next_type(), "error late", "byte by byte");
    bytes three;
    for (int i = 0; i < 3; ++i) {
        const bytes one = test_peer::frame(body_of(draft_of(-1, {})));
        three.insert(three.end(), one.begin(), one.end());
    }
    peer.send_bytes(three);
    t.check(peer.next_type() == "error late" && peer.next_type() == "error late" && peer.next_type() == "error late", "three at once");

    // one peer at a time
    test_peer second(l.path());
    t.equal(second.next_type(), "error busy", "second peer: busy");
    t.equal(second.next_type(), "closed", "second peer: closed");
    t.check(peer.sync() && l.link.connected(), "second peer: the first one stays");
}

static void test_reconnect(test_state & t) {
    test_link l;

    // without a peer
    l.begin(0, 1, { 1, 2, 3 });
    l.step(0, { 4 });
    l.step(0, { 5, 6 });
    l.begin(1, 2, { 9 });
    l.step(1, { 8 });
    l.link.end(1, "stop");
    t.check(l.link.take(0).empty() && l.link.top_k() == 0, "reconnect: plain without a peer");

    std::vector<int32_t> held = { 1, 2, 3, 4, 5, 6 };
    for (int i = 0; i < 4; ++i) {
        test_peer peer(l.path());
        t.check(peer.shake_hands(), "reconnect: connected");
        l.step(0, { 100 + i });
        const json begin = peer.next();
        t.check(begin["type"] == "begin" && begin["slot"] == 0 && begin["id"] == 1 && begin["keep"] == 0 && i32s(begin["tokens"]) == held, "reconnect: begin tells all: " + begin.dump());
        held.push_back(100 + i);
        const json step = peer.next();
        t.check(step["type"] == "step" && step["seq"] == 1 && i32s(step["slots"][0]["accepted"]) == std::vector<int32_t>({ 100 + i }), "reconnect: seq begins anew");
        l.step(0, { 200 + i });
        held.push_back(200 + i);
        t.equal(peer.next_type(), "step", "reconnect: told once");
        peer.hang_up();
        t.check(wait_until([&]() { return !l.link.connected(); }), "reconnect: gone");
        if (i % 2 == 0) {
            l.step(0, { 300 + i });
            held.push_back(300 + i);
        }
    }

    // a request that this peer was never told of does not end for it
    test_peer peer(l.path());
    t.check(peer.shake_hands(), "reconnect: connected");
    l.link.end(0, "stop");
    l.link.flush();
    t.check(peer.sync(), "reconnect: no end without begin");
    l.begin(0, 5, { 1, 2, 3, 4 });
    l.step(0, { 5 });
    const json begin = peer.next();
    t.check(begin["keep"] == 0 && i32s(begin["tokens"]) == std::vector<int32_t>({ 1, 2, 3, 4 }), "reconnect: nothing is kept of what another peer held");
}

// the decode loop's longest wait, with a peer that does not read
static void test_no_reader(test_state & t) {
    test_link l(BUDGET_SHORT);
    auto slot = test_link::step_of(0, { 5 });
    slot.k = 8;
    slot.ids.assign(40000, 1);
    slot.probs.assign(40000, 0.5f);

    test_peer peer(l.path());
    t.check(peer.shake_hands(), "no reader: connected");
    l.begin(0, 1, std::vector<int32_t>(100000, 1));

    int64_t us_max = 0;
    int     n_step = 0;
    while (l.link.connected() && n_step < 1000) {
        const int64_t t0 = ggml_time_us();
        l.link.step({ slot }, 5000, 1);
        l.link.take(0);
        us_max = std::max(us_max, ggml_time_us() - t0);
        n_step++;
    }
    t.check(n_step > 50 && n_step < 200, string_format("no reader: closed after %d steps of 320 kB", n_step));
    t.check(us_max < PROMPT_US, string_format("no reader: a step took %.1f ms", us_max/1e3));
    while (!peer.next().is_null()) {}
    t.check(peer.closed, "no reader: the link is closed");
    t.check(works(l), "no reader: a good peer is welcome");

    // a peer that reads, but is never up to date: what was sent does not pile up
    test_peer slow(l.path());
    t.check(slow.shake_hands(), "slow reader: connected");
    l.step(0, { 5 });
    slow.until("step");
    bytes buf(1024*1024);
    n_largest = 0;
    size_t n_sent = 0, n_read = 0;
    for (int i = 0; i < 400; ++i) {
        l.link.step({ slot }, 5000, 1);
        n_sent += 320000;
        // stays about 4 MB behind
        while (n_sent - n_read > 4000000) {
            const ssize_t n = recv(slow.fd, buf.data(), buf.size(), 0);
            if (n <= 0) {
                break;
            }
            n_read += n;
        }
    }
    t.check(l.link.connected(), "slow reader: still connected");
    t.check(n_largest < 4*4000000, string_format("slow reader: %zu MB allocated at once, %zu MB were sent", n_largest/1000000, n_sent/1000000));
    slow.hang_up();
    t.check(wait_until([&]() { return !l.link.connected(); }), "slow reader: gone");
}

// CPU time of this process while nothing happens for a while, in ms
static double idle_cpu_ms() {
    const clock_t c0 = clock();
    poll(nullptr, 0, 300);
    return 1e3*(clock() - c0)/CLOCKS_PER_SEC;
}

static void test_half_closed(test_state & t) {
    test_link l(BUDGET_SHORT);
    l.begin(0, 1, { 1 });
    {
        test_peer peer(l.path());
        t.check(peer.shake_hands(), "half closed: connected");
        shutdown(peer.fd, SHUT_RD);
        l.step(0, { 5 });
        t.check(wait_until([&]() { return !l.link.connected(); }), "half closed: a peer that cannot read is dropped");
        l.step(0, { 5 });
        const double ms = idle_cpu_ms();
        t.check(ms < 150, string_format("half closed: %.0f ms of CPU time in 300 ms", ms));
    }
    {
        test_peer peer(l.path());
        t.check(peer.shake_hands(), "half closed: connected");
        shutdown(peer.fd, SHUT_WR);
        t.check(wait_until([&]() { return !l.link.connected(); }), "half closed: a peer that cannot write is dropped");
    }
    t.check(works(l), "half closed: a good peer is welcome");
}

static void test_no_descriptors(test_state & t) {
    test_link l;

    rlimit old = {};
    getrlimit(RLIMIT_NOFILE, &old);

    const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    rlimit low = old;
    low.rlim_cur = fd + 1; // the link cannot open another one
    sockaddr_un addr = {};
    addr.sun_family = AF_UNIX;
    strncpy(addr.sun_path, l.path().c_str(), sizeof(addr.sun_path) - 1);

    t.check(setrlimit(RLIMIT_NOFILE, &low) == 0, "no descriptors: limit");
    t.check(connect(fd, (const sockaddr *) &addr, sizeof(addr)) == 0, "no descriptors: connected");
    const double ms = idle_cpu_ms();
    setrlimit(RLIMIT_NOFILE, &old);
    t.check(ms < 150, string_format("no descriptors: %.0f ms of CPU time in 300 ms", ms));

    pollfd p = { fd, POLLIN, 0 };
    t.check(poll(&p, 1, WAIT_MS) == 1, "no descriptors: accepted once there are some");
    close(fd);
    t.check(wait_until([&]() { return works(l); }), "no descriptors: a good peer is welcome");
}

// a peer that sends without end: late drafts, as fast as it can
static void test_flood(test_state & t) {
    auto l = std::make_unique<test_link>(BUDGET_SHORT);
    l->begin(0, 1, { 1 });

    test_peer peer(l->path());
    t.check(peer.shake_hands(), "flood: connected");

    bytes block;
    const bytes one = test_peer::frame(body_of(draft_of(-1, {})));
    while (block.size() < 1000000) {
        block.insert(block.end(), one.begin(), one.end());
    }
    std::atomic<bool> over { false };
    std::thread writer([&]() { while (!over && peer.send_bytes(block)) {} });
    std::thread reader([&]() {
        bytes buf(65536);
        while (!over && recv(peer.fd, buf.data(), buf.size(), 0) > 0) {}
    });

    int64_t us_max = 0;
    for (int i = 0; i < 200; ++i) {
        const int64_t t0 = ggml_time_us();
        l->step(0, { 5 });
        l->link.take(0);
        us_max = std::max(us_max, ggml_time_us() - t0);
    }
    t.check(us_max < PROMPT_US, string_format("flood: a step took %.1f ms", us_max/1e3));

    const int64_t t0 = ggml_time_us();
    l.reset();
    const int64_t us = ggml_time_us() - t0;
    t.check(us < WAIT_MS*1000ll/2, string_format("flood: the link ended after %.1f ms", us/1e3));

    over = true;
    shutdown(peer.fd, SHUT_RDWR);
    writer.join();
    reader.join();
}

// the peer goes away at every point of an exchange
static void test_hang_up(test_state & t) {
    test_link l(BUDGET_SHORT);
    l.begin(0, 1, { 1, 2 });

    for (int at = 0; at < 12; ++at) {
        test_peer peer(l.path());
        const bytes hello = test_peer::frame(body_of(hello_of()));
        json step;
        const std::vector<std::function<void()>> acts = {
            [&]() { peer.send_bytes({ hello[0] }); },
            [&]() { peer.send_bytes({ hello[1], hello[2], hello[3] }); },
            [&]() { peer.send_bytes(bytes(hello.begin() + 4, hello.end() - 3)); },
            [&]() { peer.send_bytes(bytes(hello.end() - 3, hello.end())); },
            [&]() { peer.next(); },
            [&]() { wait_until([&]() { return l.link.connected(); }); },
            [&]() { l.step(0, { 5 }); },
            [&]() { step = peer.until("step"); },
            [&]() { peer.send_bytes({ 0x40 }); },
            [&]() { peer.send_bytes({ 0x00, 0x00, 0x00, 0x81 }); },
            [&]() { l.link.take(0); },
            [&]() { l.link.end(0, "stop"); l.link.flush(); l.begin(0, at, { 1 }); },
        };
        for (int i = 0; i < at; ++i) {
            acts[i]();
        }
        peer.hang_up();

        const int64_t t0 = ggml_time_us();
        l.step(0, { 5 });
        l.link.take(0);
        t.check(ggml_time_us() - t0 < PROMPT_US, string_format("hang up %d: the next step runs", at));
        t.check(wait_until([&]() { return !l.link.connected(); }), string_format("hang up %d: noticed", at));
    }
    t.check(works(l), "hang up: a good peer is welcome");

    // while a draft is awaited
    test_link m(BUDGET_LONG);
    m.begin(0, 1, { 1 });
    test_peer peer(m.path());
    t.check(peer.shake_hands(), "hang up: connected");
    std::thread leaver([&]() {
        peer.until("step");
        peer.hang_up();
    });
    const int64_t t0 = ggml_time_us();
    m.step(0, { 5 });
    const bool empty = m.link.take(0).empty();
    leaver.join();
    t.check(empty && ggml_time_us() - t0 < BUDGET_LONG/2, "hang up: nobody waits for the one who has gone");
}

// the server goes away at every point
static void test_shut_down(test_state & t) {
    for (int at = 0; at < 6; ++at) {
        auto l = std::make_unique<test_link>();
        const std::string path = l->path();

        std::unique_ptr<test_peer> peer;
        const std::vector<std::function<void()>> acts = {
            [&]() { peer = std::make_unique<test_peer>(path); },
            [&]() { peer->next(); },
            [&]() { peer->send(hello_of()); peer->sync(); },
            [&]() { l->begin(0, 1, std::vector<int32_t>(3000000, 7)); l->step(0, { 5 }); }, // more than the socket takes
            [&]() { peer->until("step"); peer->send_bytes({ 9, 0 }); },
        };
        for (int i = 0; i < at; ++i) {
            acts[i]();
        }

        const int64_t t0 = ggml_time_us();
        l.reset();
        t.check(ggml_time_us() - t0 < PROMPT_US, string_format("shut down %d: at once", at));
        if (peer) {
            while (!peer->next().is_null()) {}
            t.check(peer->closed, string_format("shut down %d: the peer sees it", at));
        }
        t.check(access(path.c_str(), F_OK) != 0, string_format("shut down %d: the socket is removed", at));
    }
    server_draft_link never(test_info(), 0);
    never.begin(0, 1, "", { 1 }, {});
    never.step({ test_link::step_of(0, { 5 }) }, 5000, 1);
    t.check(never.take(0).empty() && !never.connected(), "a link that never listened runs plain");
}

// one log line per fault, and at most one per second for those that a peer can cause at will
static void test_log(test_state & t) {
    test_dir dir;
    const int level = common_log_get_verbosity_thold();
    common_log_set_file(common_log_main(), dir.path("log").c_str());
    common_log_set_verbosity_thold(LOG_LEVEL_WARN);

    const int n_turn = 500;
    const int64_t t0 = ggml_time_us();
    {
        test_link l(BUDGET_LONG);
        l.begin(0, 1, { 1 });
        test_peer peer(l.path());
        t.check(peer.shake_hands(), "log: connected");
        for (int i = 0; i < n_turn; ++i) {
            l.step(0, { 5 });
            const json j = peer.until("step");
            peer.send(draft_of(-1, {}));
            peer.send(draft_of(j["seq"], { draft_slot(0, { -1 }, { -1 }), draft_slot(3, {}, {}) }));
            l.link.take(0);
        }
        peer.send(json::array());
        while (!peer.next().is_null()) {}
    }
    const int64_t n_second = (ggml_time_us() - t0)/1000000 + 2;

    common_log_set_verbosity_thold(level);
    common_log_set_file(common_log_main(), nullptr);

    std::ifstream file(dir.path("log"));
    std::stringstream text;
    text << file.rdbuf();
    const auto count = [&](const char * what) {
        int n = 0;
        for (size_t at = text.str().find(what); at != std::string::npos; at = text.str().find(what, at + 1)) {
            n++;
        }
        return n;
    };
    for (const char * code : { "error late", "error bad_draft", "error no_slot" }) {
        t.check(count(code) >= 1 && count(code) <= n_second, string_format("log: %d lines for %d times %s", count(code), n_turn, code));
    }
    t.check(count("link closed") == 1 && count("error bad_frame") == 1, "log: one line for a link that is closed");
    unlink(dir.path("log").c_str());
}

// a decode loop and a peer that drafts, dawdles, blunders, and comes and goes; the decode loop must never wait, and get
// no draft but the one for its step
static void test_storm(test_state & t) {
    test_link l(2000);
    const unsigned seed = t.rng();

    std::atomic<bool> over { false };
    std::atomic<int>  n_peers { 0 };

    std::thread peers([&]() {
        std::mt19937 rng(seed);
        const auto random = [&](int a, int b) { return std::uniform_int_distribution<int>(a, b)(rng); };
        while (!over) {
            test_peer peer(l.path());
            if (peer.fd < 0 || peer.next(1000).is_null() || !peer.send(hello_of(random(1, 8)))) {
                continue;
            }
            n_peers++;
            for (int left = random(1, 150); left > 0 && !over; --left) {
                const json j = peer.next(50);
                if (j.is_null() && peer.closed) {
                    break;
                }
                if (j.is_null() || j["type"] != "step" || j["ask"] != true) {
                    continue;
                }
                std::vector<json> slots;
                for (const auto & s : j["slots"]) {
                    const int32_t mark = i32s(s["accepted"]).back();
                    slots.push_back(draft_slot(s["slot"], { mark, mark }, { -1, random(0, 20) == 0 ? 5 : 0 }, random(0, 3) == 0 ? random(1, 4) : 0));
                }
                switch (random(0, 60)) {
                    case 0: peer.send_bytes({ 1, 2, 3, 4, 5 }); break;
                    case 1: peer.send(json::array()); break;
                    case 2: poll(nullptr, 0, 5); break; // note: late on purpose
                    case 3: continue;
                    default: break;
                }
                peer.send(draft_of(j["seq"], slots));
            }
        }
    });

    int n_draft = 0, n_wrong = 0;
    int64_t us_max = 0;
    bool active[N_SLOTS] = {};
    const int64_t t_end = ggml_time_us() + WAIT_MS*1000ll;
    for (int i = 0; (n_draft < 2000 || n_peers < 50) && ggml_time_us() < t_end; ++i) {
        const int32_t mark = i % N_VOCAB;
        const int64_t t0 = ggml_time_us();
        std::vector<server_draft_step_slot> cur;
        for (int slot = 0; slot < N_SLOTS; ++slot) {
            if (!active[slot] && t.random(0, 20) == 0) {
                l.begin(slot, i, std::vector<int32_t>(t.random(1, 500), slot));
                active[slot] = true;
            }
            if (active[slot]) {
                cur.push_back(test_link::step_of(slot, { mark }, t.random(0, 10), t.random(0, 10) > 0));
            }
            if (active[slot] && t.random(0, 100) == 0) {
                l.link.end(slot, "stop");
                active[slot] = false;
            }
        }
        if (cur.empty()) {
            l.link.flush();
        } else {
            l.link.step(cur, 5000, cur.size());
        }
        for (int slot = 0; slot < N_SLOTS; ++slot) {
            const auto tree = l.link.take(slot);
            n_draft += !tree.empty();
            n_wrong += !tree.empty() && (tree.tokens != std::vector<int32_t>({ mark, mark }) || tree.parents != std::vector<int32_t>({ -1, 0 }));
        }
        us_max = std::max(us_max, ggml_time_us() - t0);
    }
    over = true;
    peers.join();

    t.check(n_wrong == 0, string_format("storm: %d of %d drafts were not for their step", n_wrong, n_draft));
    t.check(n_draft > 0 && n_peers > 1, string_format("storm: %d drafts of %d peers", n_draft, (int) n_peers));
    t.check(us_max < PROMPT_US, string_format("storm: a step took %.1f ms", us_max/1e3));
}

static int count_descriptors() {
    int n = 0;
    if (DIR * dir = opendir("/dev/fd")) {
        while (readdir(dir)) {
            n++;
        }
        closedir(dir);
    }
    return n;
}

static void test_link_all(test_state & t) {
    const int n_fd = count_descriptors();

    test_listen(t);
    test_hello(t);
    test_begin(t);
    test_step(t);
    test_drafts(t);
    test_sleep(t);
    test_wait(t);
    test_hold(t);
    test_late(t);
    test_refused(t);
    test_reconnect(t);
    test_no_reader(t);
    test_half_closed(t);
    test_no_descriptors(t);
    test_flood(t);
    test_hang_up(t);
    test_shut_down(t);
    test_log(t);
    test_storm(t);

    const int n_left = count_descriptors() - n_fd;
    t.check(n_left == 0, string_format("%d file descriptors are left open", n_left));
}

#else

static void test_link_all(test_state &) {
    printf("link: not on this platform\n");
}

#endif // _WIN32

int main(int argc, char ** argv) {
    test_state  t;
    unsigned    seed = 1;
    std::string only = "tree,topk,measure,frames,link";

    for (int i = 1; i < argc; ++i) {
        const std::string arg = argv[i];
        if (arg == "-v") {
            t.verbose = true;
        } else if (arg == "-s" && i + 1 < argc) {
            seed = std::stoul(argv[++i]);
        } else if (arg == "-o" && i + 1 < argc) {
            only = argv[++i];
        } else {
            fprintf(stderr, "usage: %s [-s seed] [-v] [-o tree,topk,measure,frames,link]\n", argv[0]);
            return 1;
        }
    }
    t.rng.seed(seed);
    ggml_time_init();
    common_log_set_verbosity_thold(t.verbose ? LOG_LEVEL_INFO : LOG_LEVEL_OUTPUT);

    if (only.find("tree") != std::string::npos) {
        test_tree_messages(t);
        test_tree_random(t);
    }
    if (only.find("topk") != std::string::npos) {
        test_topk(t);
    }
    if (only.find("measure") != std::string::npos) {
        test_cost_fit(t);
        test_measures_file(t);
    }
    if (only.find("frames") != std::string::npos) {
        test_writer(t);
        test_parse(t);
        test_hostile_bodies(t);
        test_fuzz(t, 200000);
    }
    if (only.find("link") != std::string::npos) {
        test_link_all(t);
    }

    common_log_flush(common_log_main());
    printf("%d passed, %d failed\n", t.n_pass, t.n_fail);
    return t.n_fail == 0 ? 0 : 1;
}
