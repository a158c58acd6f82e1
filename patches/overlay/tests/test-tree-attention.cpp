// draft trees in one sequence [aded]: whatever a tree's node sees and gives must be what decoding its path token by token
// sees and gives; after a path is kept, decoding goes on as if the rejected nodes had never been
//
// runs on mock models of every architecture (the fixtures of test-llama-archs.cpp), or on a model file:
//   test-tree-attention [-x] [-a arch] [-m model.gguf] [-s seed] [-v]
// -x: with the batch-invariant CPU kernels, and nothing but equal bits will do
// the last line is "N passed, N failed"

#define main test_llama_archs_main
#include "test-llama-archs.cpp"
#undef main

#include "../src/llama-ext.h"

#include <algorithm>
#include <set>

// small batches use other kernels than single tokens, and the cells of a kept path lie in another order, so the last bits
// differ, and deep models amplify that. what a wrong mask gives is measured on each model first (siblings that see each
// other): the tolerance is a fraction of it, and plain noise (a chain in one batch against token by token) has to be below
static constexpr double CONTROL_MIN  = 1e-3;
static constexpr double TOL_FRACTION = 1.0/50;

// standard deviations of the mock models' weights: the first for which the attention matters (CONTROL_MIN) is taken
static constexpr float MOCK_STDEV[] = { 0.1f, 0.2f, 0.3f, 0.6f, 1.2f, 2.4f };

// the mock models are so small that a second thread only waits
static int n_threads = 1;

struct test_state {
    int  n_pass  = 0;
    int  n_fail  = 0;
    bool verbose = false;
    bool exact   = false;

    double nmse_tol = 0.0;

    // largest differences seen
    double nmse_max  = 0.0;
    double diff_max  = 0.0;
    double ratio_max = 0.0; // of the NMSE to the tolerance

    void check(bool ok, const std::string & name) {
        if (ok) {
            n_pass++;
        } else {
            n_fail++;
        }
        if (!ok || verbose) {
            printf("%s: %s\n", ok ? "ok" : "FAIL", name.c_str());
            fflush(stdout);
        }
    }
};

struct tree_spec {
    std::vector<llama_token> tokens;
    std::vector<int32_t>     parents; // -1: child of the root
    std::vector<int32_t>     depth;   // 1 for a child of the root

    size_t size() const { return tokens.size(); }

    std::vector<int32_t> path_to(int32_t i) const {
        std::vector<int32_t> res;
        for (; i >= 0; i = parents[i]) {
            res.push_back(i);
        }
        std::reverse(res.begin(), res.end());
        return res;
    }
};

// a random tree in order of depth; siblings may carry equal tokens, the mask has to tell them apart all the same
static tree_spec random_tree(std::mt19937 & rng, int n_nodes, int depth_max, int n_vocab) {
    std::vector<std::pair<int, int>> nodes; // (depth, parent in creation order)
    for (int i = 0; i < n_nodes; ++i) {
        int parent = -1;
        int depth  = 1;
        for (int tries = 0; tries < 8 && i > 0; ++tries) {
            // prefer recent nodes, so that the trees get deep
            const int c = (int) (rng() % (i + 1)) - 1;
            if (c < 0 || nodes[c].first < depth_max) {
                parent = c;
                depth  = c < 0 ? 1 : nodes[c].first + 1;
                break;
            }
        }
        nodes.emplace_back(depth, parent);
    }

    std::vector<int> order(n_nodes);
    for (int i = 0; i < n_nodes; ++i) {
        order[i] = i;
    }
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return nodes[a].first < nodes[b].first; });

    std::vector<int> rank(n_nodes);
    for (int i = 0; i < n_nodes; ++i) {
        rank[order[i]] = i;
    }

    tree_spec res;
    for (int i = 0; i < n_nodes; ++i) {
        const auto & node = nodes[order[i]];
        res.tokens .push_back(rng() % n_vocab);
        res.parents.push_back(node.second < 0 ? -1 : rank[node.second]);
        res.depth  .push_back(node.first);
    }
    return res;
}

static std::vector<llama_token> random_tokens(std::mt19937 & rng, int n, int n_vocab) {
    std::vector<llama_token> res(n);
    for (auto & t : res) {
        t = rng() % n_vocab;
    }
    return res;
}

// text of the model's own, so that real models are not fed with noise
static std::vector<llama_token> model_text(struct test_ctx & c, std::mt19937 & rng, int n);


struct test_ctx {
    llama_context_ptr ctx;
    int               n_vocab = 0;
    llama_batch       batch   = {};

    // reference: what others are compared with, without anything that trees bring along
    test_ctx(llama_model * model, uint32_t n_ctx, uint32_t n_seq, bool unified, bool reference) {
        llama_context_params params = llama_context_default_params();
        params.n_ctx           = n_ctx;
        params.n_batch         = 512;
        params.n_ubatch        = 512;
        params.n_seq_max       = n_seq;
        params.kv_unified      = unified;
        params.swa_full        = reference;
        params.type_k          = GGML_TYPE_F32;
        params.type_v          = GGML_TYPE_F32;
        params.n_threads       = n_threads;
        params.n_threads_batch = n_threads;

        ctx.reset(llama_init_from_model(model, params));
        if (!ctx) {
            throw std::runtime_error("failed to create llama context");
        }
        if (!reference) {
            llama_set_graph_cache(ctx.get(), 100); // few enough that some have to go
        }
        n_vocab = llama_vocab_n_tokens(llama_model_get_vocab(model));
        batch   = llama_batch_init(512, 0, 1);
    }

    ~test_ctx() {
        llama_batch_free(batch);
    }

    llama_memory_t mem() const { return llama_get_memory(ctx.get()); }

    std::vector<float> logits(int i) const {
        const float * p = llama_get_logits_ith(ctx.get(), i);
        return std::vector<float>(p, p + n_vocab);
    }

    // tokens one after the other at pos0, pos0 + 1, ...; the logits of the last one
    std::vector<float> run(const std::vector<llama_token> & tokens, llama_pos pos0, llama_seq_id seq = 0, bool one_by_one = false) {
        std::vector<float> res;
        for (size_t i = 0; i < tokens.size();) {
            const size_t n = one_by_one ? 1 : tokens.size() - i;
            common_batch_clear(batch);
            for (size_t j = i; j < i + n; ++j) {
                common_batch_add(batch, tokens[j], pos0 + j, { seq }, j + 1 == i + n);
            }
            if (llama_decode(ctx.get(), batch) != 0) {
                throw std::runtime_error("failed to decode");
            }
            i += n;
            if (i == tokens.size()) {
                res = logits(n - 1);
            }
        }
        return res;
    }

    // add the root and the nodes of a tree to the batch; returns the batch index of the root
    int add_tree(const tree_spec & tree, llama_token root, llama_pos pos, llama_seq_id seq, std::vector<int32_t> & parents) {
        const int i0 = batch.n_tokens;
        common_batch_add(batch, root, pos, { seq }, true);
        parents.push_back(-1);
        for (size_t i = 0; i < tree.size(); ++i) {
            common_batch_add(batch, tree.tokens[i], pos + tree.depth[i], { seq }, true);
            parents.push_back(i0 + 1 + tree.parents[i]);
        }
        return i0;
    }

    int decode_tree(const tree_spec & tree, llama_token root, llama_pos pos, llama_seq_id seq = 0, bool with_parents = true) {
        std::vector<int32_t> parents;
        common_batch_clear(batch);
        add_tree(tree, root, pos, seq, parents);
        if (with_parents) {
            llama_set_tree(ctx.get(), parents.data(), parents.size());
        }
        return llama_decode(ctx.get(), batch);
    }

    void keep(llama_seq_id seq, const std::vector<int32_t> & path, int i0 = 0) {
        std::vector<int32_t> idx;
        for (const int32_t i : path) {
            idx.push_back(i0 + 1 + i);
        }
        llama_memory_seq_keep_path(mem(), seq, idx.data(), idx.size());
    }
};

static std::vector<llama_token> model_text(test_ctx & c, std::mt19937 & rng, int n) {
    std::vector<llama_token> res = { 1 };
    while ((int) res.size() < n) {
        const auto logits = c.run({ res.back() }, res.size() - 1);
        std::vector<llama_token> ids(logits.size());
        for (size_t i = 0; i < ids.size(); ++i) {
            ids[i] = i;
        }
        std::partial_sort(ids.begin(), ids.begin() + 4, ids.end(), [&](llama_token a, llama_token b) { return logits[a] > logits[b]; });
        res.push_back(ids[rng() % 4]);
    }
    llama_memory_clear(c.mem(), true);
    return res;
}

static bool close(test_state & ts, const std::vector<float> & a, const std::vector<float> & b) {
    const double err = nmse(a, b);
    double diff = 0.0;
    for (size_t i = 0; i < a.size(); ++i) {
        diff = std::max(diff, (double) std::fabs(a[i] - b[i]));
    }
    if (err > ts.nmse_max) {
        ts.nmse_max = err;
    }
    ts.ratio_max = std::max(ts.ratio_max, err/ts.nmse_tol);
    if (diff > ts.diff_max) {
        ts.diff_max = diff;
    }
    if (ts.exact) {
        return a.size() == b.size() && memcmp(a.data(), b.data(), a.size()*sizeof(float)) == 0;
    }
    return err <= ts.nmse_tol;
}

// the logits of every node by decoding its path token by token; ref holds the prompt up to the root's predecessor
static std::vector<std::vector<float>> sequential(test_ctx & ref, const tree_spec & tree, llama_token root, llama_pos pos) {
    std::vector<std::vector<float>> res(tree.size() + 1);

    res[0] = ref.run({ root }, pos);

    std::function<void(int32_t)> visit = [&](int32_t parent) {
        for (size_t i = 0; i < tree.size(); ++i) {
            if (tree.parents[i] != parent) {
                continue;
            }
            const llama_pos p = pos + tree.depth[i];
            res[i + 1] = ref.run({ tree.tokens[i] }, p);
            visit(i);
            llama_memory_seq_rm(ref.mem(), 0, p, -1);
        }
    };
    visit(-1);

    llama_memory_seq_rm(ref.mem(), 0, pos, -1);
    return res;
}

static std::vector<llama_token> path_tokens(const tree_spec & tree, const std::vector<int32_t> & path) {
    std::vector<llama_token> res;
    for (const int32_t i : path) {
        res.push_back(tree.tokens[i]);
    }
    return res;
}

struct calibration {
    double noise   = 0.0;
    double control = 0.0;
};

// NMSE of a chain in one batch against token by token, and of a tree with a wrong mask against its paths
static calibration calibrate(llama_model * model, uint32_t n_ctx, std::mt19937 & rng) {
    test_ctx cur(model, n_ctx, 1, true, false);
    test_ctx ref(model, n_ctx, 1, true, true);

    calibration res;
    if (!llama_memory_can_tree(cur.mem())) {
        return res;
    }

    tree_spec chain;
    tree_spec bush;
    for (int i = 0; i < 24; ++i) {
        chain.tokens .push_back(rng() % cur.n_vocab);
        chain.parents.push_back(i - 1);
        chain.depth  .push_back(i + 1);
    }
    for (int i = 0; i < 8; ++i) {
        bush.tokens .push_back(rng() % cur.n_vocab);
        bush.parents.push_back(i < 4 ? -1 : i - 4);
        bush.depth  .push_back(i < 4 ?  1 : 2);
    }

    const auto prompt = random_tokens(rng, 24, cur.n_vocab);
    cur.run(prompt, 0);
    ref.run(prompt, 0);

    for (const auto * tree : { &chain, &bush }) {
        const auto want = sequential(ref, *tree, 1, prompt.size());
        if (cur.decode_tree(*tree, 1, prompt.size(), 0, false) != 0) {
            throw std::runtime_error("failed to decode");
        }
        double & err = tree == &chain ? res.noise : res.control;
        for (size_t i = 1; i <= tree->size(); ++i) {
            err = std::max(err, nmse(cur.logits(i), want[i]));
        }
        llama_memory_seq_rm(cur.mem(), 0, prompt.size(), -1);
    }

    return res;
}

static void test_model(test_state & ts, llama_model * model, const std::string & name, uint32_t n_ctx, std::mt19937 & rng, bool thorough) {
    test_ctx cur(model, n_ctx, 1, true, false);
    test_ctx ref(model, n_ctx, 1, true, true);

    const int n_vocab = cur.n_vocab;

    if (!llama_memory_can_tree(cur.mem())) {
        // a recurrent or hybrid memory refuses the tree and is not harmed by it
        const auto prompt = random_tokens(rng, 8, n_vocab);
        const auto tree   = random_tree(rng, 4, 2, n_vocab);
        cur.run(prompt, 0);
        ref.run(prompt, 0);
        ts.nmse_tol = 1e-4;
        ts.check(cur.decode_tree(tree, prompt[0], 8) == -1, name + ": a memory without trees refuses one");
        ts.check(close(ts, cur.run({ prompt[1] }, 8, 0, true), ref.run({ prompt[1] }, 8, 0, true)),
                name + ": and goes on undisturbed");
        return;
    }

    const auto cal = calibrate(model, n_ctx, rng);
    ts.nmse_tol = TOL_FRACTION*cal.control;
    ts.check(ts.exact ? cal.noise == 0.0 && cal.control > 0.0 : cal.noise < ts.nmse_tol, string_format("%s: the checks can fail (NMSE: noise %.1e, tolerance %.1e, wrong mask %.1e)",
                name.c_str(), cal.noise, ts.nmse_tol, cal.control));

    // trees of 1 ... 64 nodes of several depths, one after the other in one growing sequence: each time a random path is kept
    const auto prompt = thorough ? model_text(ref, rng, 90) : random_tokens(rng, 24, n_vocab);
    llama_pos   pos  = prompt.size() - 1;
    llama_token root = prompt.back();

    cur.run({ prompt.begin(), prompt.end() - 1 }, 0);
    ref.run({ prompt.begin(), prompt.end() - 1 }, 0);

    std::vector<llama_token> history(prompt.begin(), prompt.end() - 1);

    std::vector<std::pair<int, int>> shapes = { { 1, 1 }, { 3, 2 }, { 7, 3 }, { 16, 4 } };
    if (thorough) {
        shapes.insert(shapes.end(), { { 2, 1 }, { 5, 5 }, { 12, 2 }, { 24, 8 }, { 31, 4 }, { 33, 33 }, { 48, 6 }, { 63, 5 }, { 64, 16 }, { 64, 1 } });
    } else {
        shapes.push_back({ 40, 6 });
    }

    int n_wrong = 0;
    int n_nodes = 0;
    int n_wrong_after = 0;
    bool pos_ok = true;

    for (const auto & shape : shapes) {
        auto tree = random_tree(rng, shape.first, shape.second, n_vocab);
        if (thorough) {
            for (auto & token : tree.tokens) {
                token = prompt[rng() % prompt.size()];
            }
        }
        const auto want = sequential(ref, tree, root, pos);

        if (cur.decode_tree(tree, root, pos) != 0) {
            ts.check(false, name + ": decode of a tree");
            return;
        }
        for (size_t i = 0; i <= tree.size(); ++i) {
            n_nodes++;
            n_wrong += !close(ts, cur.logits(i), want[i]);
        }

        // keep the path to a random node, or none
        const int32_t leaf = (int32_t) (rng() % (tree.size() + 1)) - 1;
        const auto    path = tree.path_to(leaf);
        cur.keep(0, path);

        auto accepted = path_tokens(tree, path);
        accepted.insert(accepted.begin(), root);
        ref.run(accepted, pos, 0, true);
        history.insert(history.end(), accepted.begin(), accepted.end());

        pos += accepted.size();
        pos_ok = pos_ok && llama_memory_seq_pos_max(cur.mem(), 0) == pos - 1;

        root = rng() % n_vocab;

        // one plain step in between
        n_wrong_after += !close(ts, cur.run({ root }, pos, 0, true), ref.run({ root }, pos, 0, true));
        history.push_back(root);
        pos++;
        root = rng() % n_vocab;
    }

    ts.check(n_wrong == 0,       string_format("%s: logits of %d nodes equal sequential decode (%d differ)", name.c_str(), n_nodes, n_wrong));
    ts.check(n_wrong_after == 0, string_format("%s: decoding goes on after a kept path (%d differ)", name.c_str(), n_wrong_after));
    ts.check(pos_ok,             name + ": positions after a kept path");

    // as many cells are in use as without the rejected nodes
    {
        std::vector<uint8_t> s0(llama_state_seq_get_size(cur.ctx.get(), 0));
        std::vector<uint8_t> s1(llama_state_seq_get_size(ref.ctx.get(), 0));
        ts.check(llama_model_n_swa(model) > 0 || s0.size() == s1.size(), name + ": no cell is left behind by a rejected node");
    }

    // wrong parents are refused, and harm nothing
    {
        auto tree = random_tree(rng, 6, 3, n_vocab);
        std::vector<int32_t> parents;
        common_batch_clear(cur.batch);
        cur.add_tree(tree, root, pos, 0, parents);

        auto refused = [&](std::vector<int32_t> p) {
            llama_set_tree(cur.ctx.get(), p.data(), p.size());
            return llama_decode(cur.ctx.get(), cur.batch) == -1;
        };
        auto p_self  = parents; p_self[3]  = 3;
        auto p_later = parents; p_later[2] = 5;
        auto p_far   = parents; p_far[4]   = 1000;
        auto p_short = parents; p_short.pop_back();
        auto p_depth = parents; p_depth[6] = tree.depth[5] == 1 ? 1 : 0; // the position is not that of the parent + 1
        ts.check(refused(p_self) && refused(p_later) && refused(p_far) && refused(p_short) && refused(p_depth), name + ": wrong parents are refused");
        ts.check(llama_memory_seq_pos_max(cur.mem(), 0) == pos - 1, name + ": a refused tree leaves the memory as it was");
    }

    // save and restore after a kept path
    {
        std::vector<uint8_t> state(llama_state_seq_get_size(cur.ctx.get(), 0));
        llama_state_seq_get_data(cur.ctx.get(), state.data(), state.size(), 0);

        test_ctx other(model, n_ctx, 1, true, false);
        const bool ok = llama_state_seq_set_data(other.ctx.get(), state.data(), state.size(), 0) > 0;
        ts.check(ok && close(ts, other.run({ root }, pos, 0, true), ref.run({ root }, pos, 0, true)), name + ": state saved after trees, restored elsewhere");
        llama_memory_seq_rm(ref.mem(), 0, pos, -1);

        // and in the very context, right after a tree
        const auto tree = random_tree(rng, 6, 3, n_vocab);
        cur.decode_tree(tree, root, pos);
        cur.keep(0, {});
        const bool ok_same = llama_state_seq_set_data(cur.ctx.get(), state.data(), state.size(), 0) > 0;
        ts.check(ok_same && close(ts, cur.run({ root }, pos, 0, true), ref.run({ root }, pos, 0, true)), name + ": state restored over a tree");
        llama_memory_seq_rm(cur.mem(), 0, pos, -1);
        llama_memory_seq_rm(ref.mem(), 0, pos, -1);
    }

    // context shift after a kept path
    // (a context whose SWA cache is smaller cannot shift, in the engine too)
    if (llama_memory_can_shift(cur.mem()) && llama_memory_can_shift(ref.mem())) {
        const llama_pos n_discard = (pos - 4)/2;
        for (test_ctx * c : { &cur, &ref }) {
            llama_memory_seq_rm (c->mem(), 0, 4, 4 + n_discard);
            llama_memory_seq_add(c->mem(), 0, 4 + n_discard, pos, -n_discard);
        }
        pos -= n_discard;

        const auto tree = random_tree(rng, 12, 4, n_vocab);
        const auto want = sequential(ref, tree, root, pos);
        int n_bad = cur.decode_tree(tree, root, pos) != 0;
        for (size_t i = 0; i <= tree.size() && n_bad == 0; ++i) {
            n_bad += !close(ts, cur.logits(i), want[i]);
        }
        const auto path = tree.path_to(tree.size() - 1);
        cur.keep(0, path);
        auto accepted = path_tokens(tree, path);
        accepted.insert(accepted.begin(), root);
        ref.run(accepted, pos, 0, true);
        pos += accepted.size();
        n_bad += !close(ts, cur.run({ 1 }, pos, 0, true), ref.run({ 1 }, pos, 0, true));
        ts.check(n_bad == 0, name + ": a tree after a context shift");
    }

    // a full context: the tree that just fits is decoded, one node more is refused, and plain decoding goes on
    if (llama_model_n_swa(model) == 0) {
        const uint32_t n_small = 256;
        test_ctx full(model, n_small, 1, true, false);
        test_ctx fref(model, n_small, 1, true, true);
        const int  n_free = 13;
        const auto fill   = random_tokens(rng, n_small - n_free, n_vocab);
        full.run(fill, 0);
        fref.run(fill, 0);

        const auto big  = random_tree(rng, n_free,     3, n_vocab);
        const auto fits = random_tree(rng, n_free - 1, 3, n_vocab);
        const llama_pos p = fill.size();

        ts.check(full.decode_tree(big, 1, p) == 1,  name + ": a tree that does not fit is refused");
        const auto want = sequential(fref, fits, 1, p);
        int n_bad = full.decode_tree(fits, 1, p) != 0;
        for (size_t i = 0; i <= fits.size() && n_bad == 0; ++i) {
            n_bad += !close(ts, full.logits(i), want[i]);
        }
        full.keep(0, {});
        n_bad += !close(ts, full.run({ 2 }, p + 1, 0, true), (fref.run({ 1 }, p, 0, true), fref.run({ 2 }, p + 1, 0, true)));
        ts.check(n_bad == 0, name + ": a tree that just fits");
    }

    // trees of several sequences in one batch, in one stream and in separate ones
    for (const bool unified : { true, false }) {
        const int n_seq = 3;
        test_ctx multi(model, n_ctx, n_seq, unified, false);

        std::vector<std::vector<std::vector<float>>> want;
        std::vector<tree_spec>                       trees;
        std::vector<std::vector<llama_token>>        prompts;
        for (int s = 0; s < n_seq; ++s) {
            prompts.push_back(random_tokens(rng, 10 + 7*s, n_vocab));
            trees  .push_back(random_tree(rng, 5 + 6*s, 4, n_vocab));
            multi.run({ prompts[s].begin(), prompts[s].end() - 1 }, 0, s);

            llama_memory_clear(ref.mem(), true);
            ref.run({ prompts[s].begin(), prompts[s].end() - 1 }, 0);
            want.push_back(sequential(ref, trees[s], prompts[s].back(), prompts[s].size() - 1));
        }

        std::vector<int32_t> parents;
        std::vector<int>     i0;
        common_batch_clear(multi.batch);
        for (int s = 0; s < n_seq; ++s) {
            i0.push_back(multi.add_tree(trees[s], prompts[s].back(), prompts[s].size() - 1, s, parents));
        }
        llama_set_tree(multi.ctx.get(), parents.data(), parents.size());
        int n_bad = llama_decode(multi.ctx.get(), multi.batch) != 0;
        for (int s = 0; s < n_seq && n_bad == 0; ++s) {
            for (size_t i = 0; i <= trees[s].size(); ++i) {
                n_bad += !close(ts, multi.logits(i0[s] + i), want[s][i]);
            }
        }
        // one sequence's path is kept, the others keep nothing: no cross-talk
        auto path_of = [&](int s) {
            return s == 1 ? trees[s].path_to(trees[s].size() - 1) : std::vector<int32_t>();
        };
        for (int s = 0; s < n_seq; ++s) {
            multi.keep(s, path_of(s), i0[s]);
        }
        for (int s = 0; s < n_seq; ++s) {
            const auto path = path_of(s);
            auto tokens = prompts[s];
            const auto accepted = path_tokens(trees[s], path);
            tokens.insert(tokens.end(), accepted.begin(), accepted.end());
            llama_memory_clear(ref.mem(), true);
            ref.run(tokens, 0);
            n_bad += llama_memory_seq_pos_max(multi.mem(), s) != (llama_pos) tokens.size() - 1;
            n_bad += !close(ts, multi.run({ 3 }, tokens.size(), s, true), ref.run({ 3 }, tokens.size(), 0, true));
        }
        ts.check(n_bad == 0, string_format("%s: trees of %d sequences at once, %s", name.c_str(), n_seq, unified ? "unified" : "one stream each"));
    }
}

int main(int argc, char ** argv) {
    std::string arch_filter;
    std::string model_path;
    size_t      seed = 42;
    bool        exact = false;

    test_state ts;

    for (int i = 1; i < argc; i++) {
        const std::string arg = argv[i];
        if (arg == "-v") {
            ts.verbose = true;
        } else if (arg == "-x") {
            exact = true;
        } else if (arg == "-a" && i + 1 < argc) {
            arch_filter = argv[++i];
        } else if (arg == "-m" && i + 1 < argc) {
            model_path = argv[++i];
        } else if (arg == "-s" && i + 1 < argc) {
            seed = std::stoull(argv[++i]);
        } else {
            fprintf(stderr, "usage: %s [-x] [-a arch|regex] [-m model.gguf] [-s seed] [-v]\n", argv[0]);
            return 2;
        }
    }

    llama_log_set([](ggml_log_level level, const char * text, void *) {
        if (level == GGML_LOG_LEVEL_ERROR && getenv("TEST_TREE_LOG")) {
            fputs(text, stderr);
        }
    }, nullptr);

    llama_backend_init();

    if (exact) {
        auto * set = (void (*)(bool)) ggml_backend_reg_get_proc_address(ggml_backend_reg_by_name("CPU"), "ggml_cpu_set_batch_invariant");
        ts.check(set != nullptr, "this build has batch-invariant kernels");
        if (set) {
            set(true);
        }
    }
    ts.exact = exact;

    std::mt19937 rng(seed);

    auto guarded = [&](const std::string & name, const std::function<void()> & f) {
        try {
            f();
        } catch (const std::exception & e) {
            ts.check(false, name + ": " + e.what());
        }
    };

    if (!model_path.empty()) {
        n_threads = 2;
        guarded(model_path, [&]() {
            llama_model_ptr model(llama_model_load_from_file(model_path.c_str(), llama_model_default_params()));
            if (!model) {
                throw std::runtime_error("cannot load the model");
            }
            test_model(ts, model.get(), model_path.substr(model_path.find_last_of('/') + 1), 2048, rng, true);
        });
    } else {
        for (const llm_arch & arch : llm_arch_all()) {
            if (!arch_supported(arch) || !arch_matches(arch_filter, arch)) {
                continue;
            }
            if (arch == LLM_ARCH_EAGLE3 || arch == LLM_ARCH_DFLASH) {
                continue; // draft models, they need a target
            }
            if (arch == LLM_ARCH_T5 || arch == LLM_ARCH_DREAM || arch == LLM_ARCH_LLADA || arch == LLM_ARCH_LLADA_MOE || arch == LLM_ARCH_RND1) {
                continue; // they encode, or have no causal mask
            }
            for (const bool moe : { false, true }) {
                if ((moe && !moe_implemented(arch)) || (!moe && moe_mandatory(arch))) {
                    continue;
                }
                const std::string name = std::string(llm_arch_name(arch)) + (moe ? " (MoE)" : "");
                ts.exact = exact && arch != LLM_ARCH_GROK; // which the engine runs without flash attention
                guarded(name, [&]() {
                    gguf_context_ptr gguf_ctx = get_gguf_ctx(arch, moe);
                    if (arch == LLM_ARCH_BAILINGMOE3) {
                        GGML_ASSERT(gguf_remove_key(gguf_ctx.get(), "bailingmoe3.kda.safe_gate") >= 0);
                    }

                    llama_model_ptr best;
                    double          control_best = -1.0;
                    for (const float stdev : MOCK_STDEV) {
                        auto model_and_ctx = get_model_and_ctx(gguf_ctx.get(), nullptr, seed, stdev, {});
                        model_and_ctx.second.reset();
                        std::mt19937 rng_cal(seed);
                        const auto cal = calibrate(model_and_ctx.first.get(), 512, rng_cal);
                        if (cal.control > control_best) {
                            control_best = cal.control;
                            best         = std::move(model_and_ctx.first);
                        }
                        if (cal.control >= CONTROL_MIN || cal.noise == 0.0) {
                            break; // good, or a memory without trees
                        }
                    }
                    test_model(ts, best.get(), name, 1024, rng, false);
                });
            }
        }
    }

    printf(exact ? "equal bits; " : "");
    printf("tolerance: 1/%.0f of the NMSE that a wrong mask gives; largest NMSE seen %.1e, largest share of the tolerance %.2f, "
            "largest difference of a logit %.1e\n", 1.0/TOL_FRACTION, ts.nmse_max, ts.ratio_max, ts.diff_max);
    printf("%d passed, %d failed\n", ts.n_pass, ts.n_fail);
    return ts.n_fail == 0 && ts.n_pass > 0 ? 0 : 1;
}
