#pragma once

// the frames of the draft link, see docs/protocol.md of the project [aded]
// MessagePack as far as the link needs it: flat maps, str, int, float, bool, bin, arrays of maps

#include <cstdint>
#include <string>
#include <vector>

constexpr int32_t SERVER_DRAFT_VERSION       = 1;
constexpr size_t  SERVER_DRAFT_FRAME_MAX_IN  =  1*1024*1024;
constexpr size_t  SERVER_DRAFT_FRAME_MAX_OUT = 16*1024*1024;

// builds one frame: the length, then the body
struct server_draft_writer {
    std::vector<uint8_t> buf;

    server_draft_writer() : buf(4) {}

    void map  (uint32_t n);
    void array(uint32_t n);
    void str  (const std::string & s);
    void num  (int64_t v);
    void boolean(bool v);
    void real (double v);
    void bin  (const void * data, size_t size);

    void key(const char * k)                               { str(k); }
    void kv (const char * k, const std::string & v)        { key(k); str(v); }
    void kv (const char * k, const char * v)               { key(k); str(v); }
    void kv (const char * k, int64_t v)                    { key(k); num(v); }
    void kv_bool(const char * k, bool v)                   { key(k); boolean(v); }
    void kv (const char * k, const std::vector<int32_t> & v) { key(k); bin(v.data(), v.size()*sizeof(int32_t)); }
    void kv (const char * k, const std::vector<float>   & v) { key(k); bin(v.data(), v.size()*sizeof(float)); }

    // fills in the length
    const std::vector<uint8_t> & finish();

private:
    void byte(uint8_t b) { buf.push_back(b); }
    void be(uint64_t v, int n_bytes);
};

// reads one body; every call returns false once something did not fit
// note: never recursive, so nesting cannot exhaust the stack
struct server_draft_reader {
    const uint8_t * p;
    const uint8_t * end;
    bool            ok = true;

    server_draft_reader(const uint8_t * data, size_t size) : p(data), end(data + size) {}

    bool map  (uint32_t & n);
    bool array(uint32_t & n);
    bool str  (std::string & s);
    bool num  (int64_t & v);
    bool i32s (std::vector<int32_t> & v); // bin of little-endian int32
    bool skip (); // one value, nested ones too

private:
    bool fail() { ok = false; return false; }
    bool take(size_t n, const uint8_t *& res);
    bool be(int n_bytes, uint64_t & v);
};

// what a peer sends
struct server_draft_frame {
    enum kind_t { HELLO, DRAFT };

    struct slot_t {
        int32_t              slot  = -1;
        int32_t              sleep = 0;
        std::vector<int32_t> tokens;
        std::vector<int32_t> parents;
    };

    kind_t kind = HELLO;

    int64_t version = 0; // hello
    int64_t top_k   = 0;

    int64_t             seq = 0; // draft
    std::vector<slot_t> slots;

    // returns an empty string, or what is wrong with the body
    std::string parse(const uint8_t * data, size_t size);
};
