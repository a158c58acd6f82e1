#include "server-draft-verify.h"

#include "common.h"

#include <cmath>
#include <stdexcept>

static constexpr size_t  MAX_PROMPTS = 64;
static constexpr size_t  MAX_TREES   = 64;
static constexpr int32_t MAX_TOP_K   = 64;

bool server_tree_verify::take(int32_t n_max, server_draft_tree & forest) {
    forest.clear();

    i_first = i_next;

    int32_t n = 0;
    while (i_next < trees.size() && n + trees[i_next].size() <= n_max) {
        forest.merge(trees[i_next]);
        n += trees[i_next].size();
        i_next++;
    }

    return i_next > i_first || trees.empty();
}

void server_tree_verify::set(server_draft_topk & topk, const server_draft_tree & forest, int32_t node, const float * logits, int32_t n_vocab) {
    const int32_t k = std::min(n_vocab, std::max(1, top_k));

    top_t cur;
    cur.ids     .resize(k);
    cur.logprobs.resize(k);
    topk.get(logits, n_vocab, k, cur.ids.data(), cur.logprobs.data());
    for (int32_t i = 0; i < k; ++i) {
        cur.logprobs[i] = logits[cur.ids[i]] - topk.logsumexp();
    }

    if (node < 0) {
        root = std::move(cur);
        return;
    }

    // index in the trees of the pass, one after the other
    int32_t i = forest.order[node];
    size_t  t = i_first;
    while (i >= trees[t].size()) {
        i -= trees[t++].size();
    }

    nodes.resize(trees.size());
    nodes[t].resize(trees[t].size());
    nodes[t][i] = std::move(cur);
}

static json top_to_json(const server_tree_verify::top_t & top, int32_t k) {
    json arr = json::array();
    for (int32_t i = 0; i < k; ++i) {
        arr.push_back(json {
            {"id",      top.ids[i]},
            {"logprob", top.logprobs[i]},
        });
    }
    return json {{"top", arr}};
}

json server_tree_verify::to_json() const {
    json res_trees = json::array();

    for (size_t t = 0; t < trees.size(); ++t) {
        const auto & tree = trees[t];

        json accepted = json::array();
        json tokens   = json::array();

        llama_token next = root.ids.at(0);
        int32_t     cur  = -1;
        while ((cur = tree.child(cur, next)) >= 0) {
            accepted.push_back(tree.order[cur]);
            tokens  .push_back(tree.tokens[cur]);
            next = nodes[t][tree.order[cur]].ids.at(0);
        }

        json res_nodes = json::array();
        for (int32_t i = 0; i < tree.size(); ++i) {
            res_nodes.push_back(top_to_json(nodes[t][i], top_k));
        }

        res_trees.push_back(json {
            {"accepted", accepted},
            {"tokens",   tokens},
            {"next",     next},
            {"nodes",    res_nodes},
        });
    }

    return json {
        {"root",  top_to_json(root, top_k)},
        {"trees", res_trees},
    };
}

json server_task_result_tree_verify::to_json() {
    json res = {
        {"index",    index},
        {"n_prompt", n_prompt},
        {"n_cached", n_cached},
    };

    const json v = verify->to_json();
    res["root"]  = v.at("root");
    res["trees"] = v.at("trees");

    return res;
}

//
// the request
//

static std::vector<int32_t> parse_ints(const json & data, const std::string & key, const std::string & where) {
    if (!data.contains(key)) {
        throw std::invalid_argument(where + " lacks \"" + key + "\"");
    }
    const json & arr = data.at(key);
    if (!arr.is_array()) {
        throw std::invalid_argument(where + "." + key + " is not an array");
    }
    std::vector<int32_t> res;
    res.reserve(arr.size());
    for (const auto & v : arr) {
        if (!v.is_number_integer()) {
            throw std::invalid_argument(string_format("%s.%s[%zu] is not an integer", where.c_str(), key.c_str(), res.size()));
        }
        const int64_t n = v.get<int64_t>();
        if (n < INT32_MIN || n > INT32_MAX) {
            throw std::invalid_argument(string_format("%s.%s[%zu] = %lld is out of range", where.c_str(), key.c_str(), res.size(), (long long) n));
        }
        res.push_back(n);
    }
    return res;
}

server_tree_verify_request server_tree_verify_request::parse(const std::string & body, int32_t n_vocab, int32_t max_nodes) {
    json data;
    try {
        data = json::parse(body);
    } catch (const std::exception &) {
        throw std::invalid_argument("the body is not valid JSON");
    }
    if (!data.is_object()) {
        throw std::invalid_argument("the body is not a JSON object");
    }

    int64_t top_k = 8;
    if (data.contains("top_k")) {
        if (!data.at("top_k").is_number_integer()) {
            throw std::invalid_argument("top_k is not an integer");
        }
        top_k = data.at("top_k").get<int64_t>();
        if (top_k < 0 || top_k > MAX_TOP_K) {
            throw std::invalid_argument(string_format("top_k = %lld is out of range (0 to %d)", (long long) top_k, MAX_TOP_K));
        }
    }

    json prompts = json::array();
    if (data.contains("prompts")) {
        prompts = data.at("prompts");
    } else if (data.contains("prompt")) {
        prompts.push_back(data);
    } else {
        throw std::invalid_argument("\"prompts\" (or \"prompt\" and \"trees\") must be given");
    }
    if (!prompts.is_array() || prompts.size() == 0) {
        throw std::invalid_argument("\"prompts\" must be a non-empty array");
    }
    if (prompts.size() > MAX_PROMPTS) {
        throw std::invalid_argument(string_format("%zu prompts, allowed are %zu", prompts.size(), MAX_PROMPTS));
    }

    server_tree_verify_request res;

    for (size_t p = 0; p < prompts.size(); ++p) {
        const json &      cur   = prompts[p];
        const std::string where = string_format("prompts[%zu]", p);

        if (!cur.is_object() || !cur.contains("prompt")) {
            throw std::invalid_argument(where + " lacks \"prompt\"");
        }
        const json & prompt = cur.at("prompt");
        if (prompt.is_array()) {
            for (const int32_t id : parse_ints(cur, "prompt", where)) {
                if (id < 0 || id >= n_vocab) {
                    throw std::invalid_argument(string_format("%s.prompt holds %d, which is not in the vocabulary (%d tokens)", where.c_str(), id, n_vocab));
                }
            }
        } else if (!prompt.is_string()) {
            throw std::invalid_argument(where + ".prompt is neither text nor an array of token ids");
        }
        if (!cur.contains("trees") || !cur.at("trees").is_array() || cur.at("trees").size() == 0) {
            throw std::invalid_argument(where + ".trees must be a non-empty array");
        }

        const json & trees = cur.at("trees");
        if (trees.size() > MAX_TREES) {
            throw std::invalid_argument(string_format("%s has %zu trees, allowed are %zu", where.c_str(), trees.size(), MAX_TREES));
        }

        auto verify = std::make_shared<server_tree_verify>();
        verify->top_k = top_k;

        for (size_t t = 0; t < trees.size(); ++t) {
            const std::string where_tree = string_format("%s.trees[%zu]", where.c_str(), t);

            if (!trees[t].is_object()) {
                throw std::invalid_argument(where_tree + " is not an object");
            }
            const auto tokens  = parse_ints(trees[t], "tokens",  where_tree);
            const auto parents = parse_ints(trees[t], "parents", where_tree);

            if (tokens.size() != parents.size()) {
                throw std::invalid_argument(string_format("%s has %zu tokens, but %zu parents", where_tree.c_str(), tokens.size(), parents.size()));
            }
            if ((int64_t) tokens.size() > max_nodes) {
                throw std::invalid_argument(string_format("%s has %zu nodes, allowed are %d", where_tree.c_str(), tokens.size(), max_nodes));
            }

            server_draft_tree tree;
            const std::string err = tree.set(tokens.data(), parents.data(), tokens.size(), n_vocab);
            if (!err.empty()) {
                throw std::invalid_argument(where_tree + "." + err);
            }
            verify->trees.push_back(std::move(tree));
        }

        verify->nodes.resize(verify->trees.size());

        res.items.push_back({ prompt, std::move(verify) });
    }

    return res;
}
