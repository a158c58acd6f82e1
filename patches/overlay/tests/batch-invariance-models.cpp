// whole models: the logits of batches and of draft trees against one-by-one decoding, bit by bit

#define main test_llama_archs_main
#include "test-llama-archs.cpp"
#undef main

#include "batch-invariance.h"

#include "../src/llama-ext.h"

#include <array>
#include <functional>
#include <memory>

#include <unistd.h>

namespace batch_invariance {

using logits = std::vector<float>;

static constexpr int N_TOKENS = 64;

struct session {
    llama_context_ptr ctx;
    int               n_vocab;
    llama_batch       batch;

    session(llama_model * model, int n_ctx, ggml_type cache, int n_threads, uint32_t n_kept = 0, int n_seq = 1) : n_vocab(llama_vocab_n_tokens(llama_model_get_vocab(model))), batch(llama_batch_init(512, 0, 1)) {
        llama_context_params params = llama_context_default_params();
        params.n_ctx           = n_ctx;
        params.n_batch         = 512;
        params.n_ubatch        = 512;
        params.n_seq_max       = n_seq;
        params.kv_unified      = n_seq > 1;
        params.type_k          = cache;
        params.type_v          = cache;
        params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_ENABLED;
        params.n_threads       = n_threads;
        params.n_threads_batch = n_threads;
        ctx.reset(llama_init_from_model(model, params));
        if (!ctx) {
            throw std::runtime_error("failed to create a context");
        }
        llama_set_graph_cache(ctx.get(), n_kept);
    }

    ~session() { llama_batch_free(batch); }

    llama_memory_t mem() const { return llama_get_memory(ctx.get()); }

    void decode() {
        if (llama_decode(ctx.get(), batch) != 0) {
            throw std::runtime_error("failed to decode");
        }
    }

    // n tokens to a batch; the logits of all
    std::vector<logits> run(const std::vector<llama_token> & tokens, llama_pos pos, size_t n, bool all = true) {
        std::vector<logits> res;
        for (size_t i = 0; i < tokens.size(); i += n) {
            common_batch_clear(batch);
            for (size_t j = i; j < std::min(i + n, tokens.size()); j++) {
                common_batch_add(batch, tokens[j], pos + j, { 0 }, all || j + 1 == tokens.size());
            }
            decode();
            for (int j = 0; all && j < batch.n_tokens; j++) {
                res.push_back(at(j));
            }
        }
        return res;
    }

    logits at(int i) const {
        const float * p = llama_get_logits_ith(ctx.get(), i);
        return logits(p, p + n_vocab);
    }
};

static bool same(const logits & a, const logits & b) {
    return a.size() == b.size() && same_bits(a.data(), b.data(), a.size());
}

struct draft {
    std::vector<llama_token> tokens;
    std::vector<int>         parents; // of node i: -1, the root
    std::vector<int>         depth;

    // in the order of depth
    draft(std::mt19937 & rng, int n, int n_vocab) {
        for (int i = 0; i < n; i++) {
            const int lo = i == 0 ? -1 : std::max(parents[i - 1], i - 9);
            parents.push_back(i == 0 ? -1 : std::min(i - 1, lo + (int) (rng()%2)));
            depth  .push_back(parents[i] < 0 ? 1 : depth[parents[i]] + 1);
            tokens .push_back(rng()%n_vocab);
        }
    }

    std::vector<int> path(int i) const {
        std::vector<int> res;
        for (; i >= 0; i = parents[i]) {
            res.insert(res.begin(), i);
        }
        return res;
    }
};

// trees one after another in a sequence, of each of which a path is kept, so that the cells get into disorder; s and ref
// hold the same tokens up to pos; returns how many nodes differ from decoding their path one by one
static int count_bad_nodes(test_state & ts, session & s, session & ref, llama_pos pos, const std::vector<int> & sizes) {
    int n_bad = 0;
    for (const int n : sizes) {
        const draft d(ts.rng, n, s.n_vocab);
        const llama_token root = ts.rng()%s.n_vocab;

        std::vector<logits> want(n + 1);
        want[0] = ref.run({ root }, pos, 1)[0];
        std::function<void(int)> visit = [&](int parent) {
            for (int i = 0; i < n; i++) {
                if (d.parents[i] == parent) {
                    want[i + 1] = ref.run({ d.tokens[i] }, pos + d.depth[i], 1)[0];
                    visit(i);
                    llama_memory_seq_rm(ref.mem(), 0, pos + d.depth[i], -1);
                }
            }
        };
        visit(-1);
        llama_memory_seq_rm(ref.mem(), 0, pos, -1);

        std::vector<int32_t> parents = { -1 };
        common_batch_clear(s.batch);
        common_batch_add(s.batch, root, pos, { 0 }, true);
        for (int i = 0; i < n; i++) {
            common_batch_add(s.batch, d.tokens[i], pos + d.depth[i], { 0 }, true);
            parents.push_back(d.parents[i] + 1);
        }
        llama_set_tree(s.ctx.get(), parents.data(), parents.size());
        s.decode();
        for (int i = 0; i <= n; i++) {
            n_bad += !same(s.at(i), want[i]);
        }

        // the path to the last node
        std::vector<llama_token> kept = { root };
        std::vector<int32_t>     idx;
        for (const int i : d.path(n - 1)) {
            kept.push_back(d.tokens[i]);
            idx.push_back(i + 1);
        }
        llama_memory_seq_keep_path(s.mem(), 0, idx.data(), idx.size());
        ref.run(kept, pos, 1);
        pos += kept.size();
    }
    return n_bad;
}

// sequences that grow side by side in one cache, by prompts and by a few tokens, go back a little and begin anew, so that their cells lie
// between each other and batches and cells in use are of all sizes in turns; returns how many logits differ from decoding each by itself
static int count_bad_side_by_side(test_state & ts, llama_model * model, ggml_type cache, int n_steps) {
    constexpr int N_SEQ = 8, N_CTX = 1536, PROMPT = 40;
    // a batch is a prompt, and not exact, from N_TOKENS + 1 on; and some models know no position beyond those of their training
    const llama_pos most = std::min(N_CTX/N_SEQ, llama_model_n_ctx_train(model)) - PROMPT;

    session s(model, N_CTX, cache, std::min(2, ts.n_threads), 192, N_SEQ);
    std::vector<std::unique_ptr<session>> refs;
    for (int q = 0; q < N_SEQ; q++) {
        refs.push_back(std::make_unique<session>(model, N_CTX, cache, 1));
    }
    std::array<llama_pos, N_SEQ> pos = {};
    // what has left the window is gone
    const bool can_go_back = llama_model_n_swa(model) == 0;
    const auto go_back = [&](int q, llama_pos to) {
        llama_memory_seq_rm(s.mem(), q, to, -1);
        llama_memory_seq_rm(refs[q]->mem(), 0, to, -1);
        pos[q] = to;
    };

    int n_bad = 0;
    for (int step = 0; step < n_steps; step++) {
        std::vector<std::pair<int, logits>> want; // by index in the batch
        common_batch_clear(s.batch);
        for (int q = 0; q < N_SEQ; q++) {
            if (pos[q] > most) {
                go_back(q, !can_go_back || ts.rng()%2 ? 0 : most/2);
            } else if (can_go_back && pos[q] > 4 && ts.rng()%4 == 0) {
                go_back(q, pos[q] - 1 - ts.rng()%3);
            }
            // the others still have room for two tokens each
            const int  room   = N_TOKENS - s.batch.n_tokens - 2*(N_SEQ - 1 - q);
            const bool prompt = pos[q] == 0 || ts.rng()%8 == 0;
            const int  n      = std::min<int>(room, prompt ? 4 + ts.rng()%(PROMPT - 3) : 1 + ts.rng()%2);
            for (int j = 0; j < n; j++, pos[q]++) {
                const llama_token token = ts.rng()%s.n_vocab;
                auto alone = refs[q]->run({ token }, pos[q], 1);
                const bool output = !prompt || j + 1 == n;
                if (output) {
                    want.emplace_back(s.batch.n_tokens, std::move(alone[0]));
                }
                common_batch_add(s.batch, token, pos[q], { q }, output);
            }
        }
        s.decode();
        for (const auto & [i, alone] : want) {
            n_bad += !same(s.at(i), alone);
        }
    }
    return n_bad;
}

static void test_model(test_state & ts, llama_model * model, const std::string & name, ggml_type cache, int depth, const std::vector<int> & widths, const std::vector<int> & trees) {
    int n_ctx = depth + 2*N_TOKENS;
    for (const int n : trees) {
        n_ctx += n + 2;
    }
    session s(model, n_ctx, cache, std::min(2, ts.n_threads), 192), ref(model, n_ctx, cache, 1);

    const auto random_tokens = [&](int n) {
        std::vector<llama_token> res;
        for (int i = 0; i < n; i++) {
            res.push_back(ts.rng()%s.n_vocab);
        }
        return res;
    };
    const auto prompt = random_tokens(depth);
    const auto tokens = random_tokens(N_TOKENS);
    for (session * x : { &s, &ref }) {
        x->run(prompt, 0, 512, false);
    }

    // with one thread, so that the number of threads is seen to change nothing either
    const auto want = ref.run(tokens, depth, 1);
    llama_memory_seq_rm(ref.mem(), 0, depth, -1);
    bool plain = false;
    for (size_t i = 1; i < want.size() && !plain; i++) {
        plain = !same(want[i], want[0]);
    }

    int n_bad = 0, first = 0;
    for (const int n : widths) {
        const auto got = s.run(tokens, depth, n);
        if (!llama_memory_seq_rm(s.mem(), 0, depth, -1)) {
            // a memory that cannot go back
            llama_memory_clear(s.mem(), true);
            s.run(prompt, 0, 512, false);
        }
        for (int i = 0; i < N_TOKENS; i++) {
            if (!same(got[i], want[i]) && n_bad++ == 0) {
                first = n;
            }
        }
    }
    ts.check(n_bad == 0 && plain, text("%s, %s cache, depth %d: batches of up to %d as one by one (%d logits differ, the first in batches of %d)", name.c_str(), ggml_type_name(cache), depth, widths.back(), n_bad, first));

    if (llama_memory_can_tree(s.mem()) && !trees.empty()) {
        n_bad = count_bad_nodes(ts, s, ref, depth, trees);
        ts.check(n_bad == 0, text("%s, %s cache, depth %d: trees as one by one (%d nodes differ)", name.c_str(), ggml_type_name(cache), depth, n_bad));
        // CogVLM's graph knows no choice of outputs (src/models/cogvlm.cpp): it gives those of the first tokens
        if (depth == 10 && name.find("cogvlm") == 0) {
            printf("%s: not tested with sequences side by side, its graph gives the logits of the first tokens instead of those asked for\n", name.c_str());
        } else if (depth == 10) {
            n_bad = count_bad_side_by_side(ts, model, cache, 40);
            ts.check(n_bad == 0, text("%s, %s cache: sequences side by side as by themselves (%d logits differ)", name.c_str(), ggml_type_name(cache), n_bad));
        }
    }
}

static std::vector<int> widths_of(const test_state & ts) {
    std::vector<int> res = { 1, 2, 3, 4, 5, 8, 13, 16, 17, 32, 33, 64 };
    if (ts.ext == extent::full) {
        res.clear();
        for (int n = 1; n <= N_TOKENS; n++) {
            res.push_back(n);
        }
    }
    return res;
}

static void guarded(test_state & ts, const std::string & name, const std::function<void()> & f) {
    try {
        f();
    } catch (const std::exception & e) {
        ts.check(false, name + ": " + e.what());
    }
}

static void quiet() {
    llama_log_set([](ggml_log_level, const char *, void *) {}, nullptr);
    llama_backend_init();
}

void test_mock_models(test_state & ts, const char * filter) {
    quiet();
    for (const llm_arch & arch : llm_arch_all()) {
        if (!arch_supported(arch) || (filter && !arch_matches(filter, arch))) {
            continue;
        }
        if (arch == LLM_ARCH_EAGLE3 || arch == LLM_ARCH_DFLASH || arch == LLM_ARCH_T5 || arch == LLM_ARCH_DREAM || arch == LLM_ARCH_LLADA || arch == LLM_ARCH_LLADA_MOE || arch == LLM_ARCH_RND1) {
            continue; // draft models, encoders, no causal mask
        }
        const std::string id = llm_arch_name(arch);
        if (id == "minimax-01" || id == "minimax-m3") {
            printf("%s: not batch-invariant, its attention is not that of these kernels (docs/performance.md)\n", id.c_str());
            continue;
        }
        for (const bool moe : { false, true }) {
            if ((moe && !moe_implemented(arch)) || (!moe && moe_mandatory(arch))) {
                continue;
            }
            const std::string name = std::string(llm_arch_name(arch)) + (moe ? " (MoE)" : "");
            guarded(ts, name, [&]() {
                gguf_context_ptr gguf_ctx = get_gguf_ctx(arch, moe);
                if (arch == LLM_ARCH_BAILINGMOE3) {
                    GGML_ASSERT(gguf_remove_key(gguf_ctx.get(), "bailingmoe3.kda.safe_gate") >= 0);
                }
                auto model = std::move(get_model_and_ctx(gguf_ctx.get(), nullptr, 42, 0.3f, {}).first);
                // the engine runs this one without flash attention, and what hides a cell is then not exact
                const bool trees = arch != LLM_ARCH_GROK;
                test_model(ts, model.get(), name, GGML_TYPE_F16, 10, widths_of(ts), trees ? std::vector<int>{ 5, 24 } : std::vector<int>());
            });
        }
    }
}

void test_model_file(test_state & ts, const std::string & path, const std::vector<std::string> & types, const std::vector<int> & depths) {
    quiet();
    static const std::vector<std::pair<std::string, llama_ftype>> FTYPES = {
        { "F32",    LLAMA_FTYPE_ALL_F32 },       { "F16",    LLAMA_FTYPE_MOSTLY_F16 },    { "BF16",   LLAMA_FTYPE_MOSTLY_BF16 },
        { "Q4_0",   LLAMA_FTYPE_MOSTLY_Q4_0 },   { "Q4_1",   LLAMA_FTYPE_MOSTLY_Q4_1 },   { "Q5_0",   LLAMA_FTYPE_MOSTLY_Q5_0 },
        { "Q5_1",   LLAMA_FTYPE_MOSTLY_Q5_1 },   { "Q8_0",   LLAMA_FTYPE_MOSTLY_Q8_0 },   { "Q4_K_M", LLAMA_FTYPE_MOSTLY_Q4_K_M },
        { "Q5_K_M", LLAMA_FTYPE_MOSTLY_Q5_K_M }, { "Q6_K",   LLAMA_FTYPE_MOSTLY_Q6_K },   { "IQ4_NL", LLAMA_FTYPE_MOSTLY_IQ4_NL },
        { "Q2_K",   LLAMA_FTYPE_MOSTLY_Q2_K },   { "IQ4_XS", LLAMA_FTYPE_MOSTLY_IQ4_XS },
    };
    const std::string base = path.substr(path.find_last_of('/') + 1);

    for (const auto & type : types.empty() ? std::vector<std::string>{ "" } : types) {
        const std::string name = type.empty() ? base : base + " as " + type;
        std::string file = path;
        guarded(ts, name, [&]() {
            if (!type.empty()) {
                const auto it = std::find_if(FTYPES.begin(), FTYPES.end(), [&](const auto & f) { return f.first == type; });
                if (it == FTYPES.end()) {
                    throw std::runtime_error("unknown type");
                }
                const char * dir = getenv("TMPDIR");
                file = text("%s/test-batch-invariance-%d.gguf", dir && *dir ? dir : "/tmp", (int) getpid());
                auto params = llama_model_quantize_default_params();
                params.ftype            = it->second;
                params.allow_requantize = true;
                if (llama_model_quantize(path.c_str(), file.c_str(), &params) != 0) {
                    throw std::runtime_error("failed to quantize");
                }
            }
            llama_model_ptr model(llama_model_load_from_file(file.c_str(), llama_model_default_params()));
            if (!model) {
                throw std::runtime_error("cannot load the model");
            }
            for (const int depth : depths) {
                test_model(ts, model.get(), name, GGML_TYPE_F16, depth, widths_of(ts), { 63, 16 });
            }
            if (ts.ext == extent::full) {
                for (const ggml_type cache : { GGML_TYPE_F32, GGML_TYPE_BF16, GGML_TYPE_Q8_0 }) {
                    test_model(ts, model.get(), name, cache, 600, widths_of(ts), { 63, 16 });
                }
            }
        });
        if (file != path) {
            unlink(file.c_str());
        }
    }
}

} // namespace batch_invariance
