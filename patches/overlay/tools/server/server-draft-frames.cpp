#include "server-draft-frames.h"

#include "common.h"

#include <cstring>

//
// server_draft_writer
//

void server_draft_writer::be(uint64_t v, int n_bytes) {
    for (int i = n_bytes - 1; i >= 0; --i) {
        byte((v >> (8*i)) & 0xff);
    }
}

void server_draft_writer::map(uint32_t n) {
    if (n < 16) {
        byte(0x80 | n);
    } else {
        byte(0xde);
        be(n, 2);
    }
}

void server_draft_writer::array(uint32_t n) {
    if (n < 16) {
        byte(0x90 | n);
    } else {
        byte(0xdc);
        be(n, 2);
    }
}

void server_draft_writer::str(const std::string & s) {
    if (s.size() < 32) {
        byte(0xa0 | s.size());
    } else {
        byte(0xdb);
        be(s.size(), 4);
    }
    buf.insert(buf.end(), s.begin(), s.end());
}

void server_draft_writer::num(int64_t v) {
    if (v >= 0 && v < 128) {
        byte(v);
    } else if (v >= INT32_MIN && v <= INT32_MAX) {
        byte(0xd2);
        be((uint32_t) (int32_t) v, 4);
    } else {
        byte(0xd3);
        be((uint64_t) v, 8);
    }
}

void server_draft_writer::boolean(bool v) {
    byte(v ? 0xc3 : 0xc2);
}

void server_draft_writer::real(double v) {
    uint64_t u;
    memcpy(&u, &v, sizeof(u));
    byte(0xcb);
    be(u, 8);
}

void server_draft_writer::bin(const void * data, size_t size) {
    byte(0xc6);
    be(size, 4);
    const uint8_t * d = (const uint8_t *) data;
    buf.insert(buf.end(), d, d + size);
}

const std::vector<uint8_t> & server_draft_writer::finish() {
    const uint32_t n = buf.size() - 4;
    for (int i = 0; i < 4; ++i) {
        buf[i] = (n >> (8*i)) & 0xff;
    }
    return buf;
}

//
// server_draft_reader
//

bool server_draft_reader::take(size_t n, const uint8_t *& res) {
    if (!ok || (size_t) (end - p) < n) {
        return fail();
    }
    res = p;
    p += n;
    return true;
}

bool server_draft_reader::be(int n_bytes, uint64_t & v) {
    const uint8_t * d;
    if (!take(n_bytes, d)) {
        return false;
    }
    v = 0;
    for (int i = 0; i < n_bytes; ++i) {
        v = (v << 8) | d[i];
    }
    return true;
}

bool server_draft_reader::map(uint32_t & n) {
    uint64_t t;
    uint64_t v = 0;
    if (!be(1, t)) {
        return false;
    }
    if ((t & 0xf0) == 0x80) {
        n = t & 0x0f;
        return true;
    }
    if ((t == 0xde && be(2, v)) || (t == 0xdf && be(4, v))) {
        n = v;
        return true;
    }
    return fail();
}

bool server_draft_reader::array(uint32_t & n) {
    uint64_t t;
    uint64_t v = 0;
    if (!be(1, t)) {
        return false;
    }
    if ((t & 0xf0) == 0x90) {
        n = t & 0x0f;
        return true;
    }
    if ((t == 0xdc && be(2, v)) || (t == 0xdd && be(4, v))) {
        n = v;
        return true;
    }
    return fail();
}

bool server_draft_reader::str(std::string & s) {
    uint64_t t;
    uint64_t n = 0;
    if (!be(1, t)) {
        return false;
    }
    if ((t & 0xe0) == 0xa0) {
        n = t & 0x1f;
    } else if (!((t == 0xd9 && be(1, n)) || (t == 0xda && be(2, n)) || (t == 0xdb && be(4, n)))) {
        return fail();
    }
    const uint8_t * d;
    if (!take(n, d)) {
        return false;
    }
    s.assign((const char *) d, n);
    return true;
}

bool server_draft_reader::num(int64_t & v) {
    uint64_t t;
    uint64_t u = 0;
    if (!be(1, t)) {
        return false;
    }
    if (t < 0x80) {
        v = t;
        return true;
    }
    if (t >= 0xe0) {
        v = (int8_t) t;
        return true;
    }
    switch (t) {
        case 0xcc: if (be(1, u)) { v = u;            return true; } break;
        case 0xcd: if (be(2, u)) { v = u;            return true; } break;
        case 0xce: if (be(4, u)) { v = u;            return true; } break;
        case 0xcf: if (be(8, u) && u <= INT64_MAX) { v = u; return true; } break;
        case 0xd0: if (be(1, u)) { v = (int8_t)  u;  return true; } break;
        case 0xd1: if (be(2, u)) { v = (int16_t) u;  return true; } break;
        case 0xd2: if (be(4, u)) { v = (int32_t) u;  return true; } break;
        case 0xd3: if (be(8, u)) { v = (int64_t) u;  return true; } break;
        default: break;
    }
    return fail();
}

bool server_draft_reader::i32s(std::vector<int32_t> & v) {
    uint64_t t;
    uint64_t n = 0;
    if (!be(1, t)) {
        return false;
    }
    if (!((t == 0xc4 && be(1, n)) || (t == 0xc5 && be(2, n)) || (t == 0xc6 && be(4, n))) || n % 4 != 0) {
        return fail();
    }
    const uint8_t * d;
    if (!take(n, d)) {
        return false;
    }
    v.resize(n/4);
    for (size_t i = 0; i < v.size(); ++i) {
        v[i] = (int32_t) ((uint32_t) d[4*i] | ((uint32_t) d[4*i + 1] << 8) | ((uint32_t) d[4*i + 2] << 16) | ((uint32_t) d[4*i + 3] << 24));
    }
    return true;
}

bool server_draft_reader::skip() {
    // the number of values that are still to be skipped; nested ones add to it
    uint64_t n_left = 1;

    while (n_left > 0) {
        uint64_t t;
        uint64_t n = 0;
        if (!be(1, t)) {
            return false;
        }
        n_left--;

        const uint8_t * d;
        if (t < 0x80 || t >= 0xe0 || t == 0xc0 || t == 0xc2 || t == 0xc3) {
            continue;
        }
        if ((t & 0xf0) == 0x80) {
            n_left += 2*(t & 0x0f);
        } else if ((t & 0xf0) == 0x90) {
            n_left += t & 0x0f;
        } else if ((t & 0xe0) == 0xa0) {
            take(t & 0x1f, d);
        } else {
            switch (t) {
                case 0xc4: case 0xd9: be(1, n) && take(n, d); break;
                case 0xc5: case 0xda: be(2, n) && take(n, d); break;
                case 0xc6: case 0xdb: be(4, n) && take(n, d); break;
                case 0xcc: case 0xd0: take(1, d); break;
                case 0xcd: case 0xd1: take(2, d); break;
                case 0xca: case 0xce: case 0xd2: take(4, d); break;
                case 0xcb: case 0xcf: case 0xd3: take(8, d); break;
                case 0xdc: be(2, n); n_left += n;   break;
                case 0xdd: be(4, n); n_left += n;   break;
                case 0xde: be(2, n); n_left += 2*n; break;
                case 0xdf: be(4, n); n_left += 2*n; break;
                default:   return fail();
            }
        }
        // each value takes a byte at least
        if (!ok || n_left > (uint64_t) (end - p)) {
            return fail();
        }
    }

    return true;
}

//
// server_draft_frame
//

static bool fits_i32(int64_t v) {
    return v >= INT32_MIN && v <= INT32_MAX;
}

std::string server_draft_frame::parse(const uint8_t * data, size_t size) {
    server_draft_reader rd(data, size);

    *this = {};

    std::string type;
    bool has_version = false;
    bool has_top_k   = false;
    bool has_seq     = false;
    bool has_slots   = false;

    uint32_t n_keys = 0;
    if (!rd.map(n_keys)) {
        return "the body is not a map";
    }

    for (uint32_t i = 0; i < n_keys && rd.ok; ++i) {
        std::string key;
        if (!rd.str(key)) {
            break;
        }
        if (key == "type") {
            rd.str(type);
        } else if (key == "version") {
            has_version = rd.num(version);
        } else if (key == "top_k") {
            has_top_k = rd.num(top_k);
        } else if (key == "seq") {
            has_seq = rd.num(seq);
        } else if (key == "slots") {
            uint32_t n_slots = 0;
            has_slots = rd.array(n_slots);
            for (uint32_t j = 0; j < n_slots && rd.ok; ++j) {
                slot_t   cur;
                uint32_t n = 0;
                bool has_slot = false, has_tokens = false, has_parents = false;
                rd.map(n);
                for (uint32_t l = 0; l < n && rd.ok; ++l) {
                    int64_t v = 0;
                    if (!rd.str(key)) {
                        break;
                    }
                    if (key == "slot") {
                        has_slot = rd.num(v) && fits_i32(v);
                        cur.slot = has_slot ? v : -1;
                    } else if (key == "sleep") {
                        if (rd.num(v)) {
                            cur.sleep = v < 0 ? 0 : v > 1024 ? 1024 : v;
                        }
                    } else if (key == "tokens") {
                        has_tokens = rd.i32s(cur.tokens);
                    } else if (key == "parents") {
                        has_parents = rd.i32s(cur.parents);
                    } else {
                        rd.skip();
                    }
                }
                if (rd.ok && (!has_slot || !has_tokens || !has_parents)) {
                    return string_format("slots[%u] lacks slot, tokens or parents, or one is of a wrong type", j);
                }
                slots.push_back(std::move(cur));
            }
        } else {
            rd.skip();
        }
    }

    if (!rd.ok) {
        return string_format("not MessagePack of the expected types (at byte %zu of %zu)", (size_t) (rd.p - data), size);
    }
    if (rd.p != rd.end) {
        return string_format("%zu bytes after the end of the map", (size_t) (rd.end - rd.p));
    }

    if (type == "hello") {
        kind = HELLO;
        // note: another version may have other keys
        return has_version && (has_top_k || version != SERVER_DRAFT_VERSION) ? "" : "hello lacks version or top_k";
    }
    if (type == "draft") {
        kind = DRAFT;
        return has_seq && has_slots ? "" : "draft lacks seq or slots";
    }
    return "unknown type";
}
