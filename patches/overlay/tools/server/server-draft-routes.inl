// the routes' part of the draft trees [aded]
// included into server-context.cpp, ahead of the handlers

// the value of a request header, whatever the case of its name
static std::string get_header(const server_http_req & req, const std::string & name) {
    for (const auto & [key, value] : req.headers) {
        if (key.size() == name.size() && std::equal(key.begin(), key.end(), name.begin(),
                    [](char a, char b) { return std::tolower((unsigned char) a) == b; })) {
            return value;
        }
    }
    return "";
}

static void server_draft_params(const server_http_req & req, const json & data, task_params & params) {
    params.draft       = get_header(req, "x-aded") != "off" && json_value(data, "speculative.n_max", -1) != 0;
    params.draft_scope = get_header(req, "x-aded-scope");
}

static void server_tree_verify_handle(server_context_impl & ctx_server, const server_context_meta & meta, const server_http_req & req, server_res_generator & res) {
    if (ctx_server.tree_n_max == 0 || !ctx_server.tree_can) {
        res.error(format_error_response("This model cannot verify draft trees (recurrent or hybrid memory, or embeddings only)", ERROR_TYPE_NOT_SUPPORTED));
        return;
    }

    auto & rd = res.rd;
    try {
        auto request = server_tree_verify_request::parse(req.body, meta.model_vocab_n_tokens, ctx_server.tree_n_max);

        std::vector<server_task> tasks;
        for (size_t i = 0; i < request.items.size(); ++i) {
            auto & item = request.items[i];

            auto inputs = tokenize_input_prompts(ctx_server.vocab, nullptr, item.prompt, true, true, ctx_server.init_opt);
            if (inputs.size() != 1 || inputs[0].empty()) {
                throw std::invalid_argument(string_format("prompts[%zu].prompt is empty", i));
            }
            const int32_t n_need = (int32_t) inputs[0].size() + ctx_server.tree_n_max + 2;
            if (n_need > meta.slot_n_ctx) {
                throw std::invalid_argument(string_format("prompts[%zu].prompt has %d tokens, with its trees it needs a context of %d, a slot has %d",
                            i, (int) inputs[0].size(), n_need, meta.slot_n_ctx));
            }

            server_task task = server_task(SERVER_TASK_TYPE_TREE_VERIFY);
            task.id          = rd.get_new_id();
            task.index       = i;
            task.tokens      = std::move(inputs[0]);
            task.tree_verify = item.verify;
            tasks.push_back(std::move(task));
        }
        rd.post_tasks(std::move(tasks));
    } catch (const std::exception & e) {
        res.error(format_error_response(e.what(), ERROR_TYPE_INVALID_REQUEST));
        return;
    }

    auto all_results = rd.wait_for_all(req.should_stop);
    if (all_results.is_terminated) {
        return; // connection is closed
    } else if (all_results.error) {
        res.error(all_results.error->to_json());
        return;
    }

    json    results   = json::array();
    double  prompt_ms = 0.0;
    double  verify_ms = 0.0;
    int32_t n_forward = 0;
    int32_t n_nodes   = 0;
    for (auto & cur : all_results.results) {
        const auto * r = dynamic_cast<server_task_result_tree_verify *>(cur.get());
        GGML_ASSERT(r != nullptr);
        results.push_back(cur->to_json());
        prompt_ms += r->prompt_ms;
        verify_ms  = std::max(verify_ms, r->verify->us/1e3);
        n_forward  = std::max(n_forward, r->verify->n_forward);
        for (const auto & tree : r->verify->trees) {
            n_nodes += tree.size();
        }
    }

    res.ok(json {
        {"object",  "tree_verification"},
        {"results", results},
        {"timings", json {
            {"prompt_ms", prompt_ms},
            {"verify_ms", verify_ms},
            {"n_forward", n_forward},
            {"n_nodes",   n_nodes},
        }},
    });
}
