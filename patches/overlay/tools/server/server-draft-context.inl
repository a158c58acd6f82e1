// the part of server_context_impl that deals with draft trees [aded]
// included into the struct's body, so that server-context.cpp holds call sites only

    std::unique_ptr<server_draft_link> draft_link;

    server_draft_topk                       draft_topk;
    std::unique_ptr<server_draft_topk_pool> draft_pool;

    // what the slot's sampler chooses after a row of the batch
    llama_token draft_sample(server_slot & slot, int32_t tok_idx) {
        if (draft_link && server_draft_is_greedy(slot.task->params.sampling, vocab)) {
            const auto gap = draft_topk.gap(llama_get_logits_ith(slot.ctx_tgt, tok_idx), llama_vocab_n_tokens(vocab));
            if (gap.gap > 0.0f && std::isfinite(gap.gap)) {
                return gap.first;
            }
        }
        return common_sampler_sample(slot.smpl.get(), slot.ctx_tgt, tok_idx);
    }

    // the likeliest successors of the root and of each node, by slot; made while the tokens are sampled
    struct draft_tops_t {
        int32_t k = 0;
        std::vector<int32_t> ids;   // [n*k]
        std::vector<float>   probs; // [n*k]
    };
    std::vector<draft_tops_t> draft_tops;

    static constexpr uint32_t draft_graph_tokens = 192; // of the batches whose graphs are kept, all together

    int32_t draft_width_max = 0;    // most tokens in a batch with drafts, 0: no limit
    float   draft_margin    = 0.0f; // logits closer than this may change places in a batch, 0: they do not
    double  draft_noise     = 0.0;  // > 0: the margin follows it
    std::vector<server_draft_step_slot> draft_steps; // what the step under way found out
    int64_t draft_us       = 0;     // time of its forward passes
    int32_t draft_n_tokens = 0;     // their tokens
    bool    draft_mixed    = false; // they evaluated prompt tokens, too

    bool draft_init() {
        auto * mem = llama_get_memory(ctx_tgt);

        // note: a tree has to fit in one ubatch, beside the other slots' tokens
        const int32_t n_room = std::min<int32_t>(llama_n_batch(ctx_tgt), llama_n_ubatch(ctx_tgt)) - params_base.n_parallel;

        tree_can   = mem && llama_memory_can_tree(mem);
        tree_n_max = params_base.embedding || !mem ? 0 : std::clamp(n_room, 0, params_base.draft_max_nodes);

        if (params_base.draft_socket.empty() || draft_link) {
            return true;
        }

        if (tree_n_max == 0 || spec) {
            SRV_WRN("%s", spec ? "--draft-socket is ignored: --spec-type is in use\n" : "--draft-socket is ignored: nothing is generated here\n");
            return true;
        }

        server_draft_info info;
        info.model      = model_name;
        info.vocab_hash = server_draft_vocab_hash(vocab);
        info.n_vocab    = llama_vocab_n_tokens(vocab);
        info.n_slots    = params_base.n_parallel;
        info.tree       = tree_can;
        // note: without trees, a chain is as long as the memory can roll back
        info.max_chain  = ctx_tgt_seq_rm_type == COMMON_CONTEXT_SEQ_RM_TYPE_PART ? tree_n_max :
                          ctx_tgt_seq_rm_type == COMMON_CONTEXT_SEQ_RM_TYPE_RS   ? std::min<int32_t>(tree_n_max, llama_n_rs_seq(ctx_tgt)) : 0;
        info.max_nodes  = tree_n_max;
        info.top_k      = std::min(64, info.n_vocab);

        // batches of all sizes that drafts come in, so that none waits for its graph
        llama_set_graph_cache(ctx_tgt, draft_graph_tokens);

        const auto measures = server_draft_measure(ctx_tgt, std::min<int32_t>(64, tree_n_max + 1), draft_kernels_exact() ? DRAFT_LONG_US : DRAFT_LONG_STOCK_US,
                params_base.draft_measures, draft_measures_key(info));

        info.cost_n   = measures.cost_n;
        info.cost_us  = measures.cost_us;
        info.tested_n = measures.tested_n;
        info.exact_n  = measures.exact_n;

        draft_init_exact(measures, info);

        draft_pool = std::make_unique<server_draft_topk_pool>(params_base.cpuparams.n_threads);
        draft_tops.resize(params_base.n_parallel);

        auto link = std::make_unique<server_draft_link>(std::move(info), params_base.draft_timeout_us);

        const std::string err = link->listen(params_base.draft_socket);
        if (!err.empty()) {
            SRV_ERR("cannot listen on draft socket '%s': %s\n", params_base.draft_socket.c_str(), err.c_str());
            return false;
        }

        if (params_base.draft_wait_ms > 0 && !link->wait_connected(params_base.draft_wait_ms)) {
            SRV_WRN("no drafter came within %d ms\n", params_base.draft_wait_ms);
        }

        draft_link = std::move(link);

        return true;
    }

    // what the measurements depend on
    std::string draft_measures_key(const server_draft_info & info) const {
        std::string res = string_format("2; %s %llu %llu %s; build %s; %s; threads %d %d, types %s %s, fa %d, invariant %d, gpu layers %d, batch %u %u, slots %d %d",
                info.model.c_str(), (unsigned long long) llama_model_size(model_tgt), (unsigned long long) llama_model_n_params(model_tgt), info.vocab_hash.c_str(),
                llama_build_info(), llama_print_system_info(), params_base.cpuparams.n_threads, params_base.cpuparams_batch.n_threads,
                ggml_type_name(params_base.cache_type_k), ggml_type_name(params_base.cache_type_v), (int) params_base.flash_attn_type, params_base.batch_invariant,
                params_base.n_gpu_layers, llama_n_batch(ctx_tgt), llama_n_ubatch(ctx_tgt), params_base.n_parallel, (int) params_base.kv_unified);
        for (size_t i = 0; i < ggml_backend_dev_count(); ++i) {
            res += string_format("; %s", ggml_backend_dev_description(ggml_backend_dev_get(i)));
        }
        return res;
    }

    // whether the kernels are made to give the same results in batches of all sizes
    bool draft_kernels_exact() const { return params_base.batch_invariant != 0 && !llama_supports_gpu_offload(); }

    // batches whose results are not those of single tokens: keep to the widths that are exact, or, where none is, do not trust close logits
    void draft_init_exact(const server_draft_measures & measures, server_draft_info & info) {
        // note: what there was no time to test is exact if the kernels are made for that and what was tested is exact
        const bool by_kernels = draft_kernels_exact() && !measures.tested_n.empty();
        const bool all_exact  = by_kernels ? measures.exact_n.size() == measures.tested_n.size() : measures.exact_up_to(std::min(64, tree_n_max + 1));

        if (params_base.draft_width > 0) {
            info.max_nodes = std::min(info.max_nodes, params_base.draft_width - 1);
        } else if (params_base.draft_near_tie >= 0.0f) {
            draft_margin = params_base.draft_near_tie;
        } else if (!all_exact && (measures.exact_max() >= DRAFT_WIDTH_MIN || measures.tested_n.empty())) {
            // note: of a batch of one token, which is all that is left where nothing could be tested, no draft is part
            draft_width_max = measures.exact_max();
            info.max_nodes  = std::clamp(draft_width_max - 1, 1, info.max_nodes);
        } else if (!all_exact) {
            draft_noise  = measures.noise;
            draft_margin = DRAFT_MARGIN_NOISE*draft_noise;
        }
        info.near_tie = draft_margin;

        if (draft_width_max > 0) {
            SRV_INF("batches of up to %d tokens give the logits of single ones: larger drafts are not used\n", draft_width_max);
        } else if (draft_margin > 0.0f) {
            SRV_INF("a batch changes logits: where the first two are closer than %.2e, a draft is not trusted\n", draft_margin);
        }
    }

    // for a comparison at a long context, once per model and machine: kernels that are made for it are believed where it takes long
    static constexpr int64_t DRAFT_LONG_US       =  1000000;
    static constexpr int64_t DRAFT_LONG_STOCK_US = 60000000;

    // fewer exact tokens than this in a batch are not worth keeping to
    static constexpr int32_t DRAFT_WIDTH_MIN = 2;

    // the margin, in standard deviations of the difference of two logits
    static constexpr float DRAFT_MARGIN_NOISE = 4.0f;

    // weight of one position at which a batch and a single token were compared
    static constexpr double DRAFT_NOISE_RATE = 0.02;

    // whether close logits may decide about the text; with a random number, where it falls cannot be known
    float draft_margin_of(const server_slot & slot) const {
        const auto & sampling = slot.task->params.sampling;
        return sampling.temp <= 0.0f || sampling.top_k == 1 ? draft_margin : 0.0f;
    }

    // the token that a draft was not trusted with is decoded alone now: how far was the batch off?
    void draft_compare(server_slot & slot, const float * logits) {
        const auto & gap = slot.tree_gap;
        if (draft_noise > 0.0 && std::isfinite(gap.gap)) {
            const double d = (double) logits[gap.first] - (double) logits[gap.second] - gap.gap;
            draft_noise  = std::sqrt((1.0 - DRAFT_NOISE_RATE)*draft_noise*draft_noise + DRAFT_NOISE_RATE*std::min(d*d, 25.0*draft_noise*draft_noise));
            draft_margin = DRAFT_MARGIN_NOISE*draft_noise;
        }
        slot.tree_plain = false;
    }

    // the first two logits of the root are too close: take the step back, the root will be decoded alone
    bool draft_take_back(server_slot & slot, int32_t tok_idx) {
        const auto gap = draft_topk.gap(llama_get_logits_ith(ctx_tgt, tok_idx), llama_vocab_n_tokens(vocab));
        if (gap.gap >= draft_margin_of(slot) || !(tree_can || ctx_tgt_seq_rm_type == COMMON_CONTEXT_SEQ_RM_TYPE_PART)) {
            return false;
        }
        slot.tree_plain = true;
        slot.tree_gap   = gap;

        if (tree_can) {
            llama_memory_seq_keep_path(llama_get_memory(ctx_tgt), slot.id, nullptr, 0);
        }
        slot.prompt.tokens.keep_first(slot.prompt.n_tokens() - 1);
        slot.mem.seq_rm(slot.id, slot.prompt.tokens.pos_next(), -1);

        slot.tree.clear();
        slot.tree_i_batch.clear();
        slot.i_batch = -1;
        return true;
    }

    static const char * draft_end_reason(const server_slot & slot) {
        switch (slot.stop) {
            case STOP_TYPE_EOS:   return "eos";
            case STOP_TYPE_WORD:  return "stop";
            case STOP_TYPE_LIMIT: return "limit";
            case STOP_TYPE_NONE:  break;
        }
        return "cancel";
    }

    // whether a draft may be used for the slot
    static bool draft_allowed(const server_slot & slot) {
        return slot.task->params.draft && slot.inp_embd.empty() && !slot.task->params.sampling.backend_sampling;
    }

    void draft_begin(const server_slot & slot) {
        if (!draft_link) {
            return;
        }

        const auto & sampling = slot.task->params.sampling;

        server_draft_sampling info;
        info.greedy  = sampling.temp <= 0.0f || sampling.top_k == 1;
        info.temp    = sampling.temp;
        info.grammar = !sampling.grammar.empty();
        info.draft   = draft_allowed(slot);

        draft_link->begin(slot.id, slot.task->id, slot.task->params.draft_scope, slot.prompt.tokens.get_text_tokens(), info);
    }

    void draft_end(const server_slot & slot) {
        if (draft_link) {
            draft_link->end(slot.id, draft_end_reason(slot));
        }
    }

    void draft_flush() {
        if (draft_link) {
            draft_link->flush();
        }
    }

    // take the drafts that the peer sent for these slots
    void draft_take(const std::vector<server_slot *> & generating, int32_t n_left) {
        if (draft_link) {
            draft_take_trees(generating, n_left);
        }
        if (params_base.draft_width > 0 && tree_can) {
            draft_fill(generating);
        }
    }

    // fill the step up to the width asked for, with nodes that are as good as any
    void draft_fill(const std::vector<server_slot *> & generating) {
        int32_t n_fill = std::min(params_base.draft_width - (int32_t) generating.size(), tree_n_max);
        for (const auto * slot : generating) {
            n_fill -= slot->tree.size();
        }
        for (auto * slot : generating) {
            if (slot->task->type == SERVER_TASK_TYPE_TREE_VERIFY || !slot->inp_embd.empty() || slot->task->params.sampling.backend_sampling) {
                continue;
            }
            const int32_t n = std::min(n_fill, slot->get_tree_nodes_max() - slot->tree.size());

            server_draft_tree fill;
            std::vector<llama_token> tokens;
            for (llama_token id = 0; (int32_t) tokens.size() < n; ++id) {
                if (slot->tree.child(-1, id) < 0) {
                    tokens.push_back(id);
                }
            }
            const std::vector<int32_t> parents(tokens.size(), -1);
            if (n > 0 && fill.set(tokens.data(), parents.data(), tokens.size(), llama_vocab_n_tokens(vocab)).empty()) {
                slot->tree.merge(fill);
                n_fill -= n;
            }
        }
    }

    void draft_take_trees(const std::vector<server_slot *> & generating, int32_t n_left) {
        const int32_t width = params_base.draft_width > 0 ? params_base.draft_width : draft_width_max;
        if (width > 0) {
            n_left = std::max(0, std::min<int32_t>(n_left, width - (int32_t) generating.size()));
        }

        for (auto * slot : generating) {
            if (slot->task->type == SERVER_TASK_TYPE_TREE_VERIFY) {
                continue;
            }

            slot->tree = draft_link->take(slot->id);

            if (!draft_allowed(*slot) || slot->tree_plain || slot->tree.size() > n_left) {
                slot->tree.clear();
            }

            slot->tree.trim(slot->get_tree_depth_max(), slot->get_tree_nodes_max());

            n_left -= slot->tree.size();

            slot->stats.n_draft_tokens += slot->tree.size();
        }
    }

    // a batch with draft trees found no space in the KV cache: take them out again, false if there are none
    bool draft_drop_trees() {
        bool res = false;
        for (auto & slot : slots) {
            res |= !slot.tree_i_batch.empty();
        }
        if (!res) {
            return false;
        }

        for (auto & slot : slots) {
            if (slot.tree_i_batch.empty()) {
                continue;
            }
            if (slot.task->type == SERVER_TASK_TYPE_TREE_VERIFY) {
                send_error(slot, "no space in the KV cache for the tree", ERROR_TYPE_UNAVAILABLE);
                for (const int32_t i : slot.tree_i_batch) {
                    batch.tokens[i].id_slot = -1;
                }
                slot.prompt.tokens.keep_first(slot.prompt.n_tokens() - 1);
                slot.release();
                continue;
            }
            for (size_t i = 1; i < slot.tree_i_batch.size(); ++i) {
                batch.tokens[slot.tree_i_batch[i]].id_slot = -1;
            }
            slot.stats.n_draft_tokens -= slot.tree.size();
            slot.tree.clear();
            slot.tree_i_batch.clear();
        }

        std::vector<int32_t> idx_new(batch.size(), -1);
        std::vector<server_batch::token> tokens_new;
        for (int32_t i = 0; i < batch.size(); ++i) {
            if (batch.tokens[i].id_slot >= 0) {
                idx_new[i] = tokens_new.size();
                tokens_new.push_back(batch.tokens[i]);
            }
        }
        for (auto & slot : slots) {
            if (slot.i_batch >= 0) {
                slot.i_batch = idx_new[slot.i_batch];
            }
        }

        batch.tokens = std::move(tokens_new);
        batch.batch_rendered = false;
        batch.render();

        return true;
    }

    // note what was found out about the root and the draft nodes of a slot
    // tok_idxs: index in the decoded batch of the root and of each node
    void draft_report(server_slot & slot, const std::vector<int32_t> & tok_idxs, const std::vector<int32_t> & path, const llama_tokens & accepted) {
        if (!draft_link) {
            return;
        }

        const int32_t n = tok_idxs.size();

        if (slot.tree_plain && n == 1) {
            draft_compare(slot, llama_get_logits_ith(ctx_tgt, tok_idxs[0]));
        }

        // note: they may still be written, up to draft_wait()
        auto & tops = draft_tops[slot.id];

        // a slot that takes over another one's prompt (n > 1) samples only now
        if (tops.ids.empty() && !slot.task->params.sampling.backend_sampling) {
            tops.k = draft_link->top_k();
            tops.ids  .resize(n*tops.k);
            tops.probs.resize(n*tops.k);
            for (int32_t i = 0; i < n && tops.k > 0; ++i) {
                draft_topk.get(llama_get_logits_ith(ctx_tgt, tok_idxs[i]), llama_vocab_n_tokens(vocab), tops.k, tops.ids.data() + i*tops.k, tops.probs.data() + i*tops.k);
            }
        }

        server_draft_step_slot cur;
        cur.slot     = slot.id;
        cur.k        = tops.k;
        cur.ids      = std::move(tops.ids);
        cur.probs    = std::move(tops.probs);
        cur.path     = path;
        cur.accepted = { accepted.begin(), accepted.end() };

        // note: the root is the last token of the prompt so far, less what has just been accepted
        cur.nodes  .push_back(slot.prompt.tokens[slot.prompt.n_tokens() - path.size()]);
        cur.parents.push_back(-1);
        for (int32_t i = 0; i < slot.tree.size() && n > 1; ++i) {
            cur.nodes  .push_back(slot.tree.tokens[i]);
            cur.parents.push_back(slot.tree.parents[i] + 1);
        }

        draft_steps.push_back(std::move(cur));
    }

    // one iteration of update_slots()
    void draft_step_begin() {
        draft_wait();
        draft_steps.clear();
        draft_us       = 0;
        draft_n_tokens = 0;
        draft_mixed    = false;
    }

    void draft_step_decoded(int32_t off, int32_t n_tokens) {
        draft_us       += ggml_time_us() - t_decode_start;
        draft_n_tokens += n_tokens;
        for (int i = off; i < off + n_tokens; ++i) {
            draft_mixed |= batch.tokens[i].is_prompt;
        }
        draft_start_tops(off, n_tokens);
    }

    // a vocabulary up to this size is looked through by the decode loop itself if it is a single token's
    static constexpr int32_t DRAFT_TOPK_INLINE = 1 << 16;

    // look for the likeliest successors in all that was decoded for slots that sample now
    void draft_start_tops(int32_t off, int32_t n_tokens) {
        if (!draft_link) {
            return;
        }
        draft_wait();

        const int32_t k       = draft_link->top_k();
        const int32_t n_vocab = llama_vocab_n_tokens(vocab);

        std::vector<server_draft_topk_pool::job> jobs;
        for (auto & slot : slots) {
            auto & tops = draft_tops[slot.id];
            tops = {};

            const bool samples = slot.state == SLOT_STATE_GENERATING || slot.state == SLOT_STATE_DONE_PROMPT;
            if (k == 0 || !samples || slot.i_batch < off || slot.i_batch >= off + n_tokens || slot.task->type == SERVER_TASK_TYPE_TREE_VERIFY ||
                    !slot.task->need_sampling() || slot.task->params.sampling.backend_sampling) {
                continue;
            }

            const std::vector<int32_t> only = { slot.i_batch };
            const auto & idxs = slot.tree_i_batch.empty() ? only : slot.tree_i_batch;

            tops.k = k;
            tops.ids  .resize(idxs.size()*k);
            tops.probs.resize(idxs.size()*k);
            for (size_t i = 0; i < idxs.size(); ++i) {
                jobs.push_back({ llama_get_logits_ith(ctx_tgt, idxs[i] - off), n_vocab, k, tops.ids.data() + i*k, tops.probs.data() + i*k });
            }
        }
        if (jobs.size() == 1 && n_vocab <= DRAFT_TOPK_INLINE) {
            // faster done than another thread is woken up
            const auto & job = jobs[0];
            draft_topk.get(job.logits, job.n, job.k, job.ids, job.probs);
        } else if (!jobs.empty()) {
            draft_pool->start(std::move(jobs));
        }
    }

    // to be called before the logits change
    void draft_wait() {
        if (draft_pool) {
            draft_pool->wait();
        }
    }

    // The drafter is asked before the clients hear of the new tokens: where cores are few, those who send them on would be in its way,
    // and the decode loop waits for the one and not for the others.
    void draft_hold_results(bool value) {
        if (draft_link && draft_link->connected()) {
            queue_results.hold(value);
        }
    }

    // send what the step found out, and ask for the next drafts
    void draft_send() {
        if (!draft_link) {
            return;
        }
        // in any case, the link may have been closed meanwhile
        struct release {
            server_response & results;
            ~release() { results.hold(false); }
        } guard { queue_results };

        draft_wait();
        if (draft_steps.empty()) {
            draft_link->flush();
            return;
        }
        for (auto & cur : draft_steps) {
            const auto & slot = slots[cur.slot];
            const bool generating = slot.state == SLOT_STATE_GENERATING;

            cur.room  = generating ? std::min(tree_n_max, slot.get_tree_nodes_max()) : 0;
            cur.draft = generating && draft_allowed(slot) && (tree_can || draft_link->get_info().max_chain > 0);
        }
        draft_link->step(draft_steps, draft_mixed ? 0 : draft_us, draft_n_tokens);
    }

    // the prompt is evaluated: the trees come next, with its last token as their root
    void tree_verify_begin(server_slot & slot) {
        slot.stats.update_prompt_last();

        slot.state   = SLOT_STATE_GENERATING;
        slot.i_batch = -1;
        slot.sampled = slot.prompt.tokens[slot.prompt.n_tokens() - 1];

        tree_verify_rewind(slot);
    }

    void tree_verify_rewind(server_slot & slot) {
        slot.prompt.tokens.keep_first(slot.prompt.n_tokens() - 1);
        slot.mem.seq_rm(slot.id, slot.prompt.tokens.pos_next(), -1);
    }

    // the next trees of the slot, false if there is no room for them in this step
    bool tree_verify_take(server_slot & slot, int32_t & n_left) {
        if (!slot.task->tree_verify->take(n_left, slot.tree)) {
            return false;
        }
        n_left -= slot.tree.size();
        return true;
    }

    void tree_verify_step(server_slot & slot, int32_t off) {
        auto & verify = *slot.task->tree_verify;

        const int32_t n_vocab = llama_vocab_n_tokens(vocab);

        if (slot.tree_i_batch.empty()) {
            slot.tree_i_batch.push_back(slot.i_batch); // no nodes, just the root
        }
        for (size_t i = 0; i < slot.tree_i_batch.size(); ++i) {
            verify.set(draft_topk, slot.tree, (int32_t) i - 1, llama_get_logits_ith(ctx_tgt, slot.tree_i_batch[i] - off), n_vocab);
        }

        verify.n_forward++;
        verify.us += ggml_time_us() - t_decode_start;

        slot.tree.clear();
        slot.tree_i_batch.clear();
        slot.i_batch = -1;

        tree_verify_rewind(slot);

        if (!verify.done()) {
            return;
        }

        auto res = std::make_unique<server_task_result_tree_verify>();

        res->id        = slot.task->id;
        res->index     = slot.task->index;
        res->verify    = slot.task->tree_verify;
        res->n_prompt  = slot.task->n_tokens();
        res->n_cached  = slot.stats.n_prompt_cached;
        res->prompt_ms = slot.stats.t_prompt_ms();

        queue_results.send(std::move(res));

        slot.release();
    }

    // verify the draft tree of a slot: walk from the root along what the request's own sampler gives
    void draft_walk(server_slot & slot, int32_t off) {
        const auto & preserved = slot.task->params.sampling.preserved_tokens;

        llama_tokens         accepted;
        std::vector<int32_t> path = { 0 }; // 0: the root, i + 1: node i

        bool has_next = true;

        const float margin = draft_margin_of(slot);

        if (margin > 0.0f && draft_take_back(slot, slot.tree_i_batch[0] - off)) {
            return;
        }

        while (true) {
            const int32_t tok_idx = slot.tree_i_batch[path.back()] - off;

            const llama_token id = draft_sample(slot, tok_idx);

            common_sampler_accept(slot.smpl.get(), id, true);

            accepted.push_back(id);

            slot.stats.n_gen += 1;
            slot.stats.update_gen_last();

            completion_token_output result;
            result.tok          = id;
            result.text_to_send = common_token_to_piece(slot.ctx_tgt, result.tok, params_base.special || preserved.find(id) != preserved.end());
            result.prob         = 1.0f;

            if (slot.task->params.sampling.n_probs > 0) {
                populate_token_probs(slot, result, slot.task->params.post_sampling_probs, params_base.special, tok_idx);
            }

            const int32_t child = slot.tree.child(path.back() - 1, id);

            has_next = process_token(result, slot);

            // note: where plain decoding would shift the context now, the walk ends, so that it is done in the next step
            if (!has_next || child < 0 || slot.prompt.n_tokens() + 1 >= slot.n_ctx) {
                break;
            }

            if (margin > 0.0f) {
                slot.tree_gap = draft_topk.gap(llama_get_logits_ith(ctx_tgt, slot.tree_i_batch[child + 1] - off), llama_vocab_n_tokens(vocab));
                if (slot.tree_gap.gap < margin) {
                    slot.tree_plain = true; // decoded alone in the next step
                    break;
                }
            }

            slot.prompt.tokens.push_back(id);
            path.push_back(child + 1);
        }

        slot.stats.n_draft_accepted += path.size() - 1;

        slot.stats.n_draft_verif_steps += 1;

        auto & n_accepted_per_pos = slot.n_accepted_per_pos;
        if (n_accepted_per_pos.size() + 1 < path.size()) {
            n_accepted_per_pos.resize(path.size() - 1, 0);
        }
        for (size_t i = 0; i + 1 < path.size(); ++i) {
            n_accepted_per_pos[i]++;
        }

        // keep the cells of the accepted path
        if (tree_can) {
            std::vector<int32_t> idxs;
            for (size_t i = 1; i < path.size(); ++i) {
                idxs.push_back(slot.tree_i_batch[path[i]] - off);
            }
            llama_memory_seq_keep_path(llama_get_memory(ctx_tgt), slot.id, idxs.data(), idxs.size());
        } else {
            slot.mem.seq_rm(slot.id, slot.prompt.tokens.pos_next(), -1);
        }

        std::vector<int32_t> tok_idxs;
        for (const int32_t i : slot.tree_i_batch) {
            tok_idxs.push_back(i - off);
        }
        draft_report(slot, tok_idxs, path, accepted);

        slot.tree.clear();
        slot.tree_i_batch.clear();
        slot.i_batch = -1;

        if (!has_next) {
            slot.print_timings();
            send_final_response(slot);
            slot.release();

            return;
        }

        slot.print_timings_tg();
    }
