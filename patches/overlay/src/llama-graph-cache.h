#pragma once

#include "llama-graph.h"

#include "ggml-cpp.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <list>

// Graphs of small batches, one for each of the shapes used last.
//
// A context reuses its graph only while batches keep their shape. Draft trees differ in size from step to step, and to build, split and
// allocate a graph anew takes as long as a tenth of the forward pass of a small model. Here each shape has a graph and a scheduler of its own,
// with its own compute buffer, so that what one of them holds stays valid while another one runs. The batches are small, and so are the buffers.

// what a graph is built and run with
struct llama_graph_set {
    ggml_backend_sched_ptr              sched;
    std::array<llm_graph_result_ptr, 2> res;
    llm_graph_result *                  active = nullptr; // the one of res that sched holds
};

class llama_graph_cache {
public:
    struct shape {
        uint32_t n_tokens;
        uint32_t n_seqs;
        uint32_t n_outputs;

        bool operator==(const shape & other) const {
            return n_tokens == other.n_tokens && n_seqs == other.n_seqs && n_outputs == other.n_outputs;
        }
    };

    // tokens of all kept graphs together; 0: none is kept
    void set_limit(uint32_t n_tokens) {
        limit = n_tokens;
        entries.clear();
    }

    // Prompts take long enough without. No batch takes more than half of the room, so that there are always two to change between.
    bool accepts(const shape & s) const {
        return s.n_outputs == s.n_tokens && s.n_tokens <= limit/2;
    }

    // The set for batches of this shape, empty if it is new; those not used for the longest time make room. Valid until the next call.
    llama_graph_set & get(const shape & s) {
        auto it = std::find_if(entries.begin(), entries.end(), [&](const entry & e) { return e.key == s; });
        if (it == entries.end()) {
            uint32_t sum = s.n_tokens;
            for (it = entries.begin(); it != entries.end() && sum + it->key.n_tokens <= limit; ++it) {
                sum += it->key.n_tokens;
            }
            entries.erase(it, entries.end());
            entries.push_front({s, {}});
        } else {
            entries.splice(entries.begin(), entries, it);
        }
        return entries.front().set;
    }

    void clear() {
        entries.clear();
    }

    // bytes of the compute buffers on that backend
    size_t size(ggml_backend_t backend) const {
        size_t res = 0;
        for (const auto & e : entries) {
            res += e.set.sched ? ggml_backend_sched_get_buffer_size(e.set.sched.get(), backend) : 0;
        }
        return res;
    }

private:
    struct entry {
        shape           key;
        llama_graph_set set;
    };

    uint32_t         limit = 0;
    std::list<entry> entries; // used last in front
};
