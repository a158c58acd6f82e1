#pragma once

// the draft link: a Unix socket over which a drafter feeds draft trees into the decode loop [aded]
// see docs/protocol.md of the project for the frames
//
// the decode loop calls the public functions from its own thread; a second thread accepts the peer and moves the bytes.
// nothing a peer sends, or does not send, stops the decode loop: the worst case is a plain step

#include "server-draft-tree.h"
#include "server-draft-frames.h"

#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

struct server_draft_info {
    std::string model;
    std::string vocab_hash;

    int32_t n_vocab   = 0;
    int32_t n_slots   = 0;
    int32_t max_nodes = 0;     // draft nodes in one step, over all slots
    bool    tree      = false; // false: chains only
    int32_t max_chain = 0;
    int32_t top_k     = 0;

    std::vector<int32_t> cost_n;
    std::vector<float>   cost_us;

    std::vector<int32_t> tested_n; // see server_draft_measures
    std::vector<int32_t> exact_n;
    float near_tie = 0.0f;         // margin of the near-tie rule, 0: off
};

struct server_draft_sampling {
    bool  greedy  = false;
    float temp    = 0.0f;
    bool  grammar = false;
    bool  draft   = true; // false: the request runs plain
};

// what one decode step found out in one slot
struct server_draft_step_slot {
    int32_t slot = -1;
    int32_t k    = 0;
    int32_t room = 0;
    bool    draft = false;

    std::vector<int32_t> accepted; // tokens emitted
    std::vector<int32_t> nodes;    // the root, then the draft nodes
    std::vector<int32_t> parents;
    std::vector<int32_t> path;
    std::vector<int32_t> ids;      // [n*k]
    std::vector<float>   probs;    // [n*k]
};

struct server_draft_link {
    // timeout_us < 0: follows the measured step time
    // hold_us: steps that ask for nothing are sent together, after at most so much time or a few steps
    server_draft_link(server_draft_info info, int32_t timeout_us, int64_t hold_us = 100000);
    ~server_draft_link();

    server_draft_link(const server_draft_link &) = delete;
    server_draft_link & operator=(const server_draft_link &) = delete;

    // returns an empty string, or why the socket cannot be listened on
    std::string listen(const std::string & path);

    bool connected() const;

    // whether a peer is connected, at the latest after ms
    bool wait_connected(int32_t ms);

    // successors per node that the peer wants, 0 without a peer
    int32_t top_k() const;

    const server_draft_info & get_info() const { return info; }

    // a slot starts to generate; tokens: its prompt
    void begin(int32_t slot, int32_t id_task, const std::string & scope, std::vector<int32_t> tokens, const server_draft_sampling & sampling);

    // a slot stops; goes out after the next step(), or with flush()
    void end(int32_t slot, const char * reason);

    // send what a step found out, and ask for drafts if any slot may have one
    // us: time of the forward pass, 0 if it evaluated prompt tokens too; n_batch: its tokens
    void step(const std::vector<server_draft_step_slot> & slots, int64_t us, int32_t n_batch);

    // send what is pending; to be called when no step follows soon
    void flush();

    // the draft for a slot, waiting for it if one was asked for and the time budget is not yet used up
    // empty: run plain. the tree is valid: ids in the vocabulary, at most max_nodes, a chain where only chains are allowed
    server_draft_tree take(int32_t slot);

private:
    struct slot_state {
        bool        active = false;
        bool        ended  = false; // end() was called, the frame is still to be sent
        int32_t     id_task = -1;
        int32_t     sleep   = 0;
        std::string scope;

        server_draft_sampling sampling;

        std::vector<int32_t> hist; // what the slot holds
        std::vector<int32_t> told; // what the peer holds for it

        uint64_t generation      = 0; // of the peer that was told of the request, 0: none yet
        uint64_t told_generation = 0; // of the peer that holds `told`
    };

    // log lines that a peer can cause at will
    struct log_limit {
        int64_t t_last = 0;
        int32_t n_held = 0;
    };

    void run();
    void accept_peer();
    bool read_peer();
    bool handle(const uint8_t * data, size_t size); // false: close the link
    void handle_draft(const server_draft_frame & frame);
    void close_peer(const std::string & why);

    // the caller holds the mutex; hold: it goes out with the next one
    void send_locked(const std::vector<uint8_t> & frame, bool hold = false);
    void error_locked(const char * code, const std::string & message, int32_t slot = -1);
    void wake();

    void send_begin(int32_t slot, uint64_t gen);
    void send_hello();

    void warn_limited(log_limit & limit, const std::string & text);

    server_draft_info info;
    int32_t           timeout_us;
    int64_t           hold_us;
    std::string       path;
    uint64_t          path_dev = 0; // of the socket file
    uint64_t          path_ino = 0;

    int fd_listen  = -1;
    int fd_peer    = -1;
    int fd_wake[2] = { -1, -1 };

    std::thread thread;

    // state of the decode loop's thread
    std::vector<slot_state>                        slots;
    std::vector<std::pair<int32_t, std::string>>   ends; // slot, reason
    uint64_t gen_seen = 0; // peer of the step before
    double  step_us   = 0.0;
    int32_t n_late    = 0;
    int32_t n_pause   = 0; // steps for which nothing is asked
    int64_t t_asked   = 0;
    int64_t t_sent    = 0; // the last step that was not held back
    int32_t n_held    = 0;
    int64_t budget_us = 0;
    int64_t spent_us  = 0; // on the exchange under way: its frame made and sent, its draft waited for
    bool    waiting   = false;

    // shared with the I/O thread
    mutable std::mutex      mutex;
    std::condition_variable cond;
    bool                    stop        = false;
    bool                    ready       = false; // the peer said hello
    bool                    close_asked = false;
    uint64_t                generation  = 0;
    int32_t                 peer_top_k  = 0;
    std::vector<uint8_t>    out;                 // bytes that the socket did not take yet
    size_t                  out_off     = 0;
    size_t                  out_held    = 0;     // bytes at the end of `out` that wait for the next frame
    int64_t                 seq         = 0;
    int64_t                 seq_asked   = 0;     // 0: nothing is awaited
    bool                    answered    = false;
    std::set<int32_t>       asked;               // slots that may have a draft
    std::map<int32_t, server_draft_tree> drafts;
    std::map<int32_t, int32_t>           sleeps;

    // state of the I/O thread
    std::vector<uint8_t> in;
    int64_t              t_accept = 0; // no accept() before
    log_limit            limit_accept;
    log_limit            limit_draft;
    log_limit            limit_late;
    log_limit            limit_slot;
};

// FNV-1a 64 over the text of every token, length-prefixed; 16 hex digits
std::string server_draft_vocab_hash(const struct llama_vocab * vocab);
