#include "server-draft-link.h"

#include "common.h"
#include "ggml.h"
#include "llama.h"
#include "log.h"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>

#ifndef _WIN32
#    include <fcntl.h>
#    include <poll.h>
#    include <sys/socket.h>
#    include <sys/stat.h>
#    include <sys/un.h>
#    include <unistd.h>
#endif

#define DRL_INF(fmt, ...) LOG_INF("drl  %12.*s: " fmt, 12, __func__, __VA_ARGS__)
#define DRL_WRN(fmt, ...) LOG_WRN("drl  %12.*s: " fmt, 12, __func__, __VA_ARGS__)

static constexpr int32_t BUDGET_MIN_US = 1000;
static constexpr int32_t BUDGET_MAX_US = 20000;
static constexpr int32_t N_LATE_MAX    = 3;
static constexpr int32_t N_PAUSE       = 16;

// steps that ask for nothing and are sent together
static constexpr int32_t N_HELD_MAX    = 24;

// what is read from the peer before anything else gets its turn; bounds the time that a flood can hold the I/O thread
static constexpr int32_t N_READ_MAX    = 16; // of 64 kiB each

// after an accept() that failed for want of file descriptors or memory
static constexpr int64_t ACCEPT_WAIT_US = 100000;

#ifndef MSG_NOSIGNAL
#    define MSG_NOSIGNAL 0
#endif

server_draft_link::server_draft_link(server_draft_info info, int32_t timeout_us, int64_t hold_us)
    : info(std::move(info)), timeout_us(timeout_us), hold_us(hold_us) {
    slots.resize(this->info.n_slots);
}

bool server_draft_link::connected() const {
    std::lock_guard<std::mutex> lock(mutex);
    return ready;
}

bool server_draft_link::wait_connected(int32_t ms) {
    std::unique_lock<std::mutex> lock(mutex);
    return cond.wait_for(lock, std::chrono::milliseconds(ms), [&]() { return ready; });
}

int32_t server_draft_link::top_k() const {
    std::lock_guard<std::mutex> lock(mutex);
    return ready ? peer_top_k : 0;
}

#ifdef _WIN32

server_draft_link::~server_draft_link() = default;

std::string server_draft_link::listen(const std::string &) {
    return "draft sockets are not supported on this platform";
}

void server_draft_link::run() {}
void server_draft_link::accept_peer() {}
bool server_draft_link::read_peer() { return false; }
void server_draft_link::close_peer(const std::string &) {}
void server_draft_link::send_locked(const std::vector<uint8_t> &, bool) {}
void server_draft_link::wake() {}

#else

static void set_nonblocking(int fd) {
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL, 0) | O_NONBLOCK);
    fcntl(fd, F_SETFD, FD_CLOEXEC);
}

std::string server_draft_link::listen(const std::string & where) {
    struct stat st;

    // note: all servers of a router are given the same folder
    const bool        in_folder = stat(where.c_str(), &st) == 0 && S_ISDIR(st.st_mode);
    const std::string path_new  = in_folder ? where + "/" + std::to_string(getpid()) + ".sock" : where;

    sockaddr_un addr = {};
    addr.sun_family = AF_UNIX;
    if (path_new.empty() || path_new.size() >= sizeof(addr.sun_path)) {
        return string_format("the path has %zu characters, a Unix socket allows 1 to %zu", path_new.size(), sizeof(addr.sun_path) - 1);
    }
    memcpy(addr.sun_path, path_new.c_str(), path_new.size());

    if (lstat(path_new.c_str(), &st) == 0) {
        if (!S_ISSOCK(st.st_mode)) {
            return "the path exists and is not a socket";
        }
        // a stale one refuses the connection
        const int  fd   = socket(AF_UNIX, SOCK_STREAM, 0);
        const bool live = fd >= 0 && connect(fd, (const sockaddr *) &addr, sizeof(addr)) == 0;
        if (fd >= 0) {
            close(fd);
        }
        if (live) {
            return "another server listens there";
        }
        unlink(path_new.c_str());
    }

    fd_listen = socket(AF_UNIX, SOCK_STREAM, 0);
    if (fd_listen < 0 || pipe(fd_wake) != 0) {
        return strerror(errno);
    }

    // note: the mode is set before anyone can connect
    const mode_t mask = umask(0177);
    const int    res  = bind(fd_listen, (const sockaddr *) &addr, sizeof(addr));
    const int    err  = errno;
    umask(mask);

    if (res != 0) {
        return strerror(err);
    }

    path = path_new;
    if (lstat(path.c_str(), &st) == 0) {
        path_dev = st.st_dev;
        path_ino = st.st_ino;
    }

    if (::listen(fd_listen, 4) != 0) {
        return strerror(errno);
    }

    set_nonblocking(fd_listen);
    set_nonblocking(fd_wake[0]);
    set_nonblocking(fd_wake[1]);

    thread = std::thread([this]() { run(); });

    DRL_INF("listening on %s, max_nodes = %d, %s\n", path.c_str(), info.max_nodes, info.tree ? "trees" : "chains");

    return "";
}

server_draft_link::~server_draft_link() {
    {
        std::lock_guard<std::mutex> lock(mutex);
        stop = true;
    }
    if (thread.joinable()) {
        wake();
        thread.join();
    }
    for (const int fd : { fd_listen, fd_peer, fd_wake[0], fd_wake[1] }) {
        if (fd >= 0) {
            close(fd);
        }
    }
    // note: by now the path may be another server's
    struct stat st;
    if (!path.empty() && lstat(path.c_str(), &st) == 0 && (uint64_t) st.st_dev == path_dev && (uint64_t) st.st_ino == path_ino) {
        unlink(path.c_str());
    }
}

void server_draft_link::wake() {
    const uint8_t b = 0;
    if (write(fd_wake[1], &b, 1) < 0) {
        // the pipe is full: the thread wakes up anyway
    }
}

//
// I/O thread
//

void server_draft_link::run() {
    while (true) {
        pollfd fds[3];
        int    n = 0;

        const int64_t t_wait = t_accept - ggml_time_us();
        {
            std::lock_guard<std::mutex> lock(mutex);
            if (stop) {
                return;
            }
            fds[n++] = { fd_wake[0], POLLIN, 0 };
            fds[n++] = { fd_listen,  (short) (t_wait > 0 ? 0 : POLLIN), 0 };
            if (fd_peer >= 0) {
                const short ev = POLLIN | (out_off < out.size() - out_held ? POLLOUT : 0);
                fds[n++] = { fd_peer, ev, 0 };
            }
        }

        if (poll(fds, n, t_wait > 0 ? t_wait/1000 + 1 : -1) < 0 && errno != EINTR) {
            DRL_WRN("poll failed: %s\n", strerror(errno));
            return;
        }

        if (fds[0].revents) {
            uint8_t buf[64];
            while (read(fd_wake[0], buf, sizeof(buf)) > 0) {}
        }

        bool too_slow = false;
        {
            std::lock_guard<std::mutex> lock(mutex);
            if (stop) {
                return;
            }
            too_slow    = close_asked;
            close_asked = false;
        }
        if (too_slow && fd_peer >= 0) {
            close_peer("the peer does not read");
            continue;
        }

        if (n > 2 && fd_peer >= 0) {
            bool can_send = true;
            if (fds[2].revents & POLLOUT) {
                std::lock_guard<std::mutex> lock(mutex);
                const ssize_t n_sent = send(fd_peer, out.data() + out_off, out.size() - out_held - out_off, MSG_NOSIGNAL | MSG_DONTWAIT);
                if (n_sent > 0) {
                    out_off += n_sent;
                } else if (n_sent < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR) {
                    can_send = false;
                }
                if (out_off == out.size()) {
                    out.clear();
                    out_off = 0;
                }
            }
            if (!can_send) {
                close_peer("the drafter no longer reads");
                continue;
            }
            if ((fds[2].revents & (POLLIN | POLLHUP | POLLERR)) && !read_peer()) {
                continue;
            }
        }

        if (fds[1].revents & POLLIN) {
            accept_peer();
        }
    }
}

void server_draft_link::accept_peer() {
    const int fd = accept(fd_listen, nullptr, nullptr);
    if (fd < 0) {
        if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
            warn_limited(limit_accept, string_format("a drafter cannot be accepted: %s", strerror(errno)));
            t_accept = ggml_time_us() + ACCEPT_WAIT_US;
        }
        return;
    }

    set_nonblocking(fd);

    if (fd_peer >= 0) {
        server_draft_writer w;
        w.map(3);
        w.kv("type", "error");
        w.kv("code", "busy");
        w.kv("message", "another drafter is connected");
        const auto & frame = w.finish();
        if (send(fd, frame.data(), frame.size(), MSG_NOSIGNAL | MSG_DONTWAIT) < 0) {
            // it is closed anyway
        }
        close(fd);
        DRL_WRN("%s", "a second drafter was turned away (error busy)\n");
        return;
    }

    in.clear();

    std::lock_guard<std::mutex> lock(mutex);
    fd_peer    = fd;
    peer_top_k = 0;
    out.clear();
    out_off    = 0;
    out_held   = 0;
    send_hello();
}

bool server_draft_link::read_peer() {
    for (int32_t i = 0; i < N_READ_MAX; ++i) {
        uint8_t buf[64*1024];
        const ssize_t n = recv(fd_peer, buf, sizeof(buf), MSG_DONTWAIT);
        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)) {
            close_peer("the drafter has gone");
            return false;
        }
        if (n < 0) {
            return true;
        }

        in.insert(in.end(), buf, buf + n);

        size_t off = 0;
        while (in.size() - off >= 4) {
            const uint8_t * p = in.data() + off;
            const uint32_t size = (uint32_t) p[0] | ((uint32_t) p[1] << 8) | ((uint32_t) p[2] << 16) | ((uint32_t) p[3] << 24);
            if (size == 0 || size > SERVER_DRAFT_FRAME_MAX_IN) {
                {
                    std::lock_guard<std::mutex> lock(mutex);
                    error_locked("too_large", string_format("a frame of %u bytes, allowed are 1 to %zu", size, SERVER_DRAFT_FRAME_MAX_IN));
                }
                close_peer(string_format("a frame of %u bytes (error too_large)", size));
                return false;
            }
            if (in.size() - off - 4 < size) {
                break;
            }
            if (!handle(p + 4, size)) {
                return false;
            }
            off += 4 + size;
        }
        in.erase(in.begin(), in.begin() + off);
    }
    return true; // the rest in the next round
}

void server_draft_link::close_peer(const std::string & why) {
    {
        std::lock_guard<std::mutex> lock(mutex);
        close(fd_peer);
        fd_peer     = -1;
        ready       = false;
        close_asked = false;
        seq_asked   = 0;
        out.clear();
        out_off     = 0;
        out_held    = 0;
        drafts.clear();
        sleeps.clear();
    }
    cond.notify_all();
    in.clear();

    DRL_WRN("link closed: %s, decoding goes on plain\n", why.c_str());
}

void server_draft_link::send_locked(const std::vector<uint8_t> & frame, bool hold) {
    if (fd_peer < 0) {
        return;
    }

    // a peer that does not read is dropped
    if (out.size() - out_off + frame.size() > 2*SERVER_DRAFT_FRAME_MAX_OUT) {
        close_asked = true;
        ready       = false;
        wake();
        return;
    }

    // note: what has been sent is dropped before it is more than what waits, a peer may lag for ever without being up to date once
    if (out_off > out.size()/2) {
        out.erase(out.begin(), out.begin() + out_off);
        out_off = 0;
    }
    out.insert(out.end(), frame.begin(), frame.end());
    if (hold) {
        out_held += frame.size();
        return;
    }
    out_held = 0;

    const ssize_t n = send(fd_peer, out.data() + out_off, out.size() - out_off, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n > 0) {
        out_off += n;
    }
    if (out_off == out.size()) {
        out.clear();
        out_off = 0;
    } else {
        wake(); // the rest goes out from the I/O thread
    }
}

#endif // _WIN32

void server_draft_link::send_hello() {
    server_draft_writer w;
    w.map(15);
    w.kv("type",       "hello");
    w.kv("version",    SERVER_DRAFT_VERSION);
    w.kv("model",      info.model);
    w.kv("n_vocab",    info.n_vocab);
    w.kv("vocab_hash", info.vocab_hash);
    w.kv("n_slots",    info.n_slots);
    w.kv("max_nodes",  info.max_nodes);
    w.kv_bool("tree",  info.tree);
    w.kv("max_chain",  info.max_chain);
    w.kv("top_k",      info.top_k);
    w.kv("cost_n",     info.cost_n);
    w.kv("cost_us",    info.cost_us);
    w.kv("tested_n",   info.tested_n);
    w.kv("exact_n",    info.exact_n);
    w.key("near_tie");
    w.real(info.near_tie);
    send_locked(w.finish());
}

void server_draft_link::error_locked(const char * code, const std::string & message, int32_t slot) {
    server_draft_writer w;
    w.map(slot >= 0 ? 4 : 3);
    w.kv("type",    "error");
    w.kv("code",    code);
    w.kv("message", message);
    if (slot >= 0) {
        w.kv("slot", slot);
    }
    send_locked(w.finish());
}

void server_draft_link::warn_limited(log_limit & limit, const std::string & text) {
    const int64_t t_now = ggml_time_us();
    if (limit.t_last != 0 && t_now - limit.t_last < 1000000) {
        limit.n_held++;
        return;
    }
    if (limit.n_held > 0) {
        DRL_WRN("%s (and %d more like it)\n", text.c_str(), limit.n_held);
    } else {
        DRL_WRN("%s\n", text.c_str());
    }
    limit.t_last = t_now;
    limit.n_held = 0;
}

bool server_draft_link::handle(const uint8_t * data, size_t size) {
    server_draft_frame frame;

    const auto refuse = [&](const char * code, const std::string & message) {
        {
            std::lock_guard<std::mutex> lock(mutex);
            error_locked(code, message);
        }
        close_peer(message + " (error " + code + ")");
        return false;
    };

    const std::string err = frame.parse(data, size);
    if (!err.empty()) {
        return refuse("bad_frame", err);
    }

    if (frame.kind == server_draft_frame::HELLO) {
        if (frame.version != SERVER_DRAFT_VERSION) {
            return refuse("version", string_format("the drafter speaks version %lld, this server %d", (long long) frame.version, SERVER_DRAFT_VERSION));
        }
        if (connected()) {
            return refuse("bad_frame", "a second hello");
        }
        if (frame.top_k < 1 || frame.top_k > 64) {
            return refuse("bad_frame", string_format("top_k = %lld, allowed are 1 to 64", (long long) frame.top_k));
        }
        {
            std::lock_guard<std::mutex> lock(mutex);
            ready      = true;
            peer_top_k = std::min<int32_t>(frame.top_k, info.top_k);
            seq        = 0;
            seq_asked  = 0;
            generation++;
        }
        cond.notify_all();
        DRL_INF("a drafter is connected, top_k = %d\n", (int) frame.top_k);
        return true;
    }

    if (!connected()) {
        return refuse("bad_frame", "a draft before hello");
    }

    handle_draft(frame);
    return true;
}

void server_draft_link::handle_draft(const server_draft_frame & frame) {
    std::unique_lock<std::mutex> lock(mutex);

    if (seq_asked == 0 || frame.seq != seq_asked || answered) {
        const auto text = string_format("a draft for step %lld, awaited is %lld", (long long) frame.seq, (long long) seq_asked);
        error_locked("late", text);
        lock.unlock();
        warn_limited(limit_late, text + " (error late)");
        return;
    }

    // note: each slot of a frame may be answered with an error, so their number has to be bounded
    if (frame.slots.size() > (size_t) info.n_slots) {
        const auto text = string_format("a draft for %zu slots, there are %d", frame.slots.size(), info.n_slots);
        error_locked("bad_draft", text);
        answered = true;
        lock.unlock();
        cond.notify_all();
        warn_limited(limit_draft, text + " (error bad_draft)");
        return;
    }

    int32_t n_left = info.max_nodes;

    for (const auto & cur : frame.slots) {
        std::string err;
        server_draft_tree tree;

        if (asked.find(cur.slot) == asked.end() || drafts.find(cur.slot) != drafts.end()) {
            const auto text = string_format("slot %d takes no draft now", cur.slot);
            error_locked("no_slot", text, cur.slot);
            warn_limited(limit_slot, text + " (error no_slot)");
            continue;
        }

        if (cur.tokens.size() != cur.parents.size()) {
            err = string_format("%zu tokens, but %zu parents", cur.tokens.size(), cur.parents.size());
        } else if (cur.tokens.size() > (size_t) n_left) {
            err = string_format("%zu nodes, only %d are left of max_nodes = %d", cur.tokens.size(), n_left, info.max_nodes);
        } else {
            err = tree.set(cur.tokens.data(), cur.parents.data(), cur.tokens.size(), info.n_vocab);
            if (err.empty() && !info.tree && (!tree.is_chain() || tree.size() > info.max_chain)) {
                err = string_format("only chains of at most %d nodes are allowed", info.max_chain);
            }
        }

        if (!err.empty()) {
            error_locked("bad_draft", err, cur.slot);
            warn_limited(limit_draft, string_format("slot %d: ", cur.slot) + err + " (error bad_draft)");
            tree.clear();
        }

        n_left -= tree.size();
        drafts[cur.slot] = std::move(tree);
        sleeps[cur.slot] = cur.sleep;
    }

    answered = true;
    lock.unlock();
    cond.notify_all();
}

//
// the decode loop's thread
//

void server_draft_link::begin(int32_t slot, int32_t id_task, const std::string & scope, std::vector<int32_t> tokens, const server_draft_sampling & sampling) {
    auto & s = slots.at(slot);

    // the end of the request before; those of other slots go out after the step that ended them
    if (s.ended) {
        flush();
    }

    s.active     = true;
    s.ended      = false;
    s.id_task    = id_task;
    s.scope      = scope;
    s.sampling   = sampling;
    s.hist       = std::move(tokens);
    s.sleep      = 0;
    s.generation = 0; // the peer is told with the next step
}

void server_draft_link::send_begin(int32_t slot, uint64_t gen) {
    auto & s = slots.at(slot);

    // a new peer holds nothing of ours
    if (s.told_generation != gen) {
        s.told.clear();
        s.told_generation = gen;
    }

    size_t keep = 0;
    while (keep < s.told.size() && keep < s.hist.size() && s.told[keep] == s.hist[keep]) {
        keep++;
    }

    server_draft_writer w;
    w.map(7);
    w.kv("type",  "begin");
    w.kv("slot",  slot);
    w.kv("id",    s.id_task);
    w.kv("scope", s.scope);
    w.kv("keep",  keep);
    w.key("tokens");
    w.bin(s.hist.data() + keep, (s.hist.size() - keep)*sizeof(int32_t));
    w.key("sampling");
    w.map(4);
    w.kv_bool("greedy",  s.sampling.greedy);
    w.key("temp");
    w.real(s.sampling.temp);
    w.kv_bool("grammar", s.sampling.grammar);
    w.kv_bool("draft",   s.sampling.draft);

    s.told       = s.hist;
    s.generation = gen;
    s.sleep      = 0; // which the peer before asked for

    std::lock_guard<std::mutex> lock(mutex);
    if (ready && generation == gen) {
        send_locked(w.finish());
    }
}

void server_draft_link::end(int32_t slot, const char * reason) {
    auto & s = slots.at(slot);
    if (s.active && !s.ended) {
        s.ended = true;
        ends.emplace_back(slot, reason);
    }
}

void server_draft_link::step(const std::vector<server_draft_step_slot> & cur, int64_t us, int32_t n_batch) {
    const int64_t t_start   = ggml_time_us();
    const int64_t before_us = spent_us;

    spent_us = 0;

    if (us > 0) {
        step_us = step_us == 0.0 ? us : 0.9*step_us + 0.1*us;
    }

    uint64_t gen = 0;
    {
        std::lock_guard<std::mutex> lock(mutex);
        if (ready) {
            gen = generation;
        }
        // what was not taken is over
        seq_asked = 0;
        drafts.clear();
        sleeps.clear();
    }
    waiting = false;

    if (gen != gen_seen) {
        // what the peer before made of its time is not this one's fault
        gen_seen = gen;
        n_late   = 0;
        n_pause  = 0;
    }

    if (gen == 0) {
        for (const auto & c : cur) {
            auto & s = slots.at(c.slot);
            s.hist.insert(s.hist.end(), c.accepted.begin(), c.accepted.end());
        }
        flush();
        return;
    }

    for (const auto & c : cur) {
        if (slots.at(c.slot).generation != gen) {
            send_begin(c.slot, gen);
        }
    }

    bool ask = false;
    std::set<int32_t> may;
    for (const auto & c : cur) {
        auto & s = slots.at(c.slot);
        s.hist.insert(s.hist.end(), c.accepted.begin(), c.accepted.end());
        s.told.insert(s.told.end(), c.accepted.begin(), c.accepted.end());
        if (!c.draft || c.room <= 0) {
            continue;
        }
        if (s.sleep > 0) {
            s.sleep--;
        } else {
            ask = true;
        }
        may.insert(c.slot);
    }
    if (n_pause > 0) {
        n_pause--;
        ask = false;
    }

    budget_us = timeout_us >= 0 ? timeout_us : std::clamp<int64_t>(step_us/4, BUDGET_MIN_US, BUDGET_MAX_US);

    server_draft_writer w;
    w.map(8);
    w.kv("type", "step");
    w.key("seq");
    const size_t pos_seq = w.buf.size();
    w.num(INT32_MAX); // 5 bytes, filled in below
    w.kv("us",        us);
    w.kv("n_batch",   n_batch);
    w.kv("spent_us",  before_us);
    w.kv_bool("ask",  ask);
    w.kv("budget_us", budget_us);
    w.key("slots");
    w.array(cur.size());
    for (const auto & c : cur) {
        w.map(10);
        w.kv("slot",     c.slot);
        w.kv("accepted", c.accepted);
        w.kv("nodes",    c.nodes);
        w.kv("parents",  c.parents);
        w.kv("path",     c.path);
        w.kv("k",        c.k);
        w.kv("ids",      c.ids);
        w.kv("probs",    c.probs);
        w.kv("room",     c.room);
        w.kv_bool("draft", c.draft);
    }

    {
        std::lock_guard<std::mutex> lock(mutex);
        if (ready && generation == gen) {
            seq = seq % INT32_MAX + 1;
            for (int i = 0; i < 4; ++i) {
                w.buf[pos_seq + 1 + i] = (seq >> (8*(3 - i))) & 0xff;
            }
            asked     = may;
            answered  = false;
            seq_asked = ask ? seq : 0;
            waiting   = ask;
            t_asked   = ggml_time_us();
            // what asks for nothing can wait for company: each time that the drafter wakes up it needs a core
            const bool hold = !ask && ++n_held < N_HELD_MAX && t_asked - t_sent < hold_us;
            if (!hold) {
                n_held = 0;
                t_sent = t_asked;
            }
            send_locked(w.finish(), hold);
            spent_us  = ask ? ggml_time_us() - t_start : 0;
        }
    }

    flush();
}

void server_draft_link::flush() {
    if (ends.empty()) {
        return;
    }

    for (const auto & e : ends) {
        auto & s = slots.at(e.first);

        std::lock_guard<std::mutex> lock(mutex);
        if (ready && s.generation == generation) {
            server_draft_writer w;
            w.map(4);
            w.kv("type",   "end");
            w.kv("slot",   e.first);
            w.kv("id",     s.id_task);
            w.kv("reason", e.second);
            send_locked(w.finish());
        }
        s.active = false;
        s.ended  = false;
    }
    ends.clear();
}

server_draft_tree server_draft_link::take(int32_t slot) {
    std::unique_lock<std::mutex> lock(mutex);

    if (waiting && seq_asked != 0 && !answered) {
        const int64_t t_wait  = ggml_time_us();
        const int64_t us_left = t_asked + budget_us - t_wait;
        if (us_left > 0) {
            cond.wait_for(lock, std::chrono::microseconds(us_left), [&]() { return answered || seq_asked == 0 || stop; });
            spent_us += ggml_time_us() - t_wait;
        }
        if (!answered && seq_asked != 0) {
            if (++n_late >= N_LATE_MAX) {
                n_late  = 0;
                n_pause = N_PAUSE;
            }
            seq_asked = 0;
        }
    }
    if (waiting && answered) {
        n_late = 0;
    }
    waiting = false;

    server_draft_tree res;

    const auto it = drafts.find(slot);
    if (it != drafts.end()) {
        res = std::move(it->second);
        slots.at(slot).sleep = sleeps[slot];
        drafts.erase(it);
        sleeps.erase(slot);
    }

    return res;
}

//
// vocabulary
//

std::string server_draft_vocab_hash(const llama_vocab * vocab) {
    uint64_t h = 0xcbf29ce484222325ull;

    const auto add = [&](const void * data, size_t size) {
        const uint8_t * p = (const uint8_t *) data;
        for (size_t i = 0; i < size; ++i) {
            h = (h ^ p[i])*0x100000001b3ull;
        }
    };

    for (int32_t i = 0; i < llama_vocab_n_tokens(vocab); ++i) {
        const char *   text = llama_vocab_get_text(vocab, i);
        const uint32_t n    = text ? strlen(text) : 0;
        const uint8_t  le[4] = { (uint8_t) n, (uint8_t) (n >> 8), (uint8_t) (n >> 16), (uint8_t) (n >> 24) };
        add(le, sizeof(le));
        add(text, n);
    }

    return string_format("%016llx", (unsigned long long) h);
}
