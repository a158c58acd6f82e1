// attention: a query's result must depend on nothing but the cells that it sees and the order of their positions, and be right

#include "batch-invariance.h"

#include <numeric>

namespace batch_invariance {

struct attn_case {
    ggml_type type;
    int64_t   DK, DV;           // sizes of a head
    int64_t   n_head, n_head_kv;
    int       depth;            // cells before the tree
    float     max_bias = 0.0f;
    float     softcap  = 0.0f;
    bool      sinks    = false;
    int       n_seq    = 1;     // sequences whose cells lie between each other
    bool      per_head = false; // each head has a mask of its own
    int       n_tree   = 0;     // nodes; 0: as many as the extent of the tests says

    std::string name() const {
        return text("flash_attn_ext %s, heads %dx%d of %d/%d, depth %d%s%s%s%s%s%s", ggml_type_name(type), (int) n_head, (int) n_head_kv, (int) DK, (int) DV, depth,
                max_bias > 0.0f ? ", ALiBi" : "", softcap > 0.0f ? ", soft cap" : "", sinks ? ", sinks" : "", n_seq > 1 ? ", sequences" : "",
                per_head ? ", a mask for each head" : "", n_tree > 0 ? text(", %d nodes", n_tree).c_str() : "");
    }
};

// cells of one sequence: a past, then the nodes of a tree. cell i holds entry at[i] of the data, -1: garbage that nobody sees
struct layout {
    std::vector<int> at;
    bool             ordered = true;  // else the order by position is an input, too; hidden cells stand before and behind the others in it
    bool             ready   = false; // and the mask in that order, too
};

struct attn_test {
    const attn_case & p;
    const cpu &       c;

    int                n_tree;
    std::vector<int>   parents; // of the nodes, -1: the past
    int                n_entry;
    std::vector<float> q;       // [n_tree][n_head][DK]
    std::vector<uint8_t> k, v;  // [n_entry][n_head_kv] heads
    std::vector<float> kf, vf;  // the numbers that these stand for
    std::vector<float> sinks;

    attn_test(const attn_case & p, const cpu & c, std::mt19937 & rng, int n_tree) : p(p), c(c), n_tree(n_tree), n_entry(p.depth + n_tree) {
        for (int i = 0; i < n_tree; i++) {
            parents.push_back(i == 0 ? -1 : (int) (rng()%std::min(i + 1, 6)) + std::max(0, i - 6) - (i < 6));
        }
        q = random_floats(rng, n_tree*p.n_head*p.DK);
        fill(rng, n_entry*p.n_head_kv, p.DK, k, kf);
        fill(rng, n_entry*p.n_head_kv, p.DV, v, vf);
        sinks = random_floats(rng, p.n_head);
    }

    void fill(std::mt19937 & rng, int64_t rows, int64_t D, std::vector<uint8_t> & bytes, std::vector<float> & values) const {
        const auto x = random_floats(rng, rows*D);
        bytes.resize(rows*ggml_row_size(p.type, D));
        values.resize(rows*D);
        ggml_quantize_chunk(p.type, x.data(), bytes.data(), 0, rows, D, nullptr);
        if (p.type == GGML_TYPE_F32) {
            values = x;
        } else {
            ggml_get_type_traits(p.type)->to_float(bytes.data(), values.data(), rows*D);
        }
    }

    // the sequence of an entry: of the past a few each in turns, of the nodes that of their root
    int sequence(int entry) const {
        if (entry < p.depth) {
            return entry/5%p.n_seq;
        }
        int node = entry - p.depth;
        while (parents[node] >= 0) {
            node = parents[node];
        }
        return node%p.n_seq;
    }

    bool sees(int node, int entry) const {
        if (entry < p.depth) {
            return sequence(entry) == sequence(p.depth + node);
        }
        for (int i = node; i >= 0; i = parents[i]) {
            if (i == entry - p.depth) {
                return true;
            }
        }
        return false;
    }

    // whole tiles of the past are hidden from a head
    bool head_sees(int node, int entry, int64_t head) const {
        return sees(node, entry) && !(p.per_head && entry < p.depth && entry/24%(p.n_head + 1) == head);
    }

    int position(int entry) const {
        int pos = std::min(entry, p.depth - 1);
        for (int i = entry - p.depth; i >= 0; i = parents[i]) {
            pos++;
        }
        return pos;
    }

    static void put_cell(const layout & l, std::vector<uint8_t> & dst, const std::vector<uint8_t> & src, size_t size) {
        dst.assign(l.at.size()*size, 0);
        for (size_t i = 0; i < l.at.size(); i++) {
            // a hidden cell holds what another one holds
            memcpy(dst.data() + i*size, src.data() + std::max(l.at[i], 0)*size, size);
        }
    }

    // the results of some nodes in one batch
    std::vector<float> run(const layout & l, const std::vector<int> & nodes, int n_threads) const {
        const int64_t n_kv = l.at.size(), n = nodes.size();
        arena a;
        auto * ctx = a.ctx.get();

        ggml_tensor * qt = ggml_new_tensor_3d(ctx, GGML_TYPE_F32, p.DK, p.n_head, n);
        // a row of the cache is a cell with all its heads
        ggml_tensor * kt = ggml_new_tensor_2d(ctx, p.type, p.DK*p.n_head_kv, n_kv);
        ggml_tensor * vt = ggml_new_tensor_2d(ctx, p.type, p.DV*p.n_head_kv, n_kv);
        ggml_tensor * mt = ggml_new_tensor_3d(ctx, GGML_TYPE_F16, n_kv, n, p.per_head ? p.n_head : 1);
        ggml_tensor * ot = ggml_new_tensor_2d(ctx, GGML_TYPE_I32, n_kv, 1);
        ggml_tensor * st = ggml_new_tensor_1d(ctx, GGML_TYPE_F32, p.n_head);
        ggml_tensor * rt = l.ready ? ggml_dup_tensor(ctx, mt) : nullptr;

        const auto head = [&](ggml_tensor * t, int64_t D) {
            return ggml_view_3d(ctx, t, D, n_kv, p.n_head_kv, t->nb[1], ggml_row_size(p.type, D), 0);
        };
        ggml_tensor * out = ggml_flash_attn_ext(ctx, ggml_permute(ctx, qt, 0, 2, 1, 3), head(kt, p.DK), head(vt, p.DV), mt, 1.0f/std::sqrt((float) p.DK), p.max_bias, p.softcap);
        out->src[5] = ot;
        out->src[6] = rt;
        if (p.sinks) {
            ggml_flash_attn_ext_add_sinks(out, st);
        }
        a.alloc(ggml_backend_cpu_buffer_type());

        std::vector<float> qs;
        for (int64_t i = 0; i < n; i++) {
            qs.insert(qs.end(), q.begin() + nodes[i]*p.n_head*p.DK, q.begin() + (nodes[i] + 1)*p.n_head*p.DK);
        }
        std::vector<ggml_fp16_t> mask;
        for (int64_t head = 0; head < mt->ne[2]; head++) {
            for (const int node : nodes) {
                for (int64_t cell = 0; cell < n_kv; cell++) {
                    const bool  visible = l.at[cell] >= 0 && head_sees(node, l.at[cell], head);
                    const float bias    = p.max_bias > 0.0f && visible ? position(l.at[cell]) - position(p.depth + node) : 0.0f;
                    mask.push_back(ggml_fp32_to_fp16(visible ? bias : -INFINITY));
                }
            }
        }
        std::vector<int32_t> order(n_kv);
        std::iota(order.begin(), order.end(), 0);
        if (l.ordered) {
            order[0] = -1;
        } else {
            const auto key = [&](int32_t cell) {
                const int e = l.at[cell];
                return e >= 0 ? std::make_pair(sequence(e), position(e)) : std::make_pair(cell%3 == 0 ? -1 : p.n_seq, 0);
            };
            std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return key(a) < key(b); });
        }
        std::vector<uint8_t> cells;
        put_cell(l, cells, k, ggml_row_size(p.type, p.DK*p.n_head_kv));
        ggml_backend_tensor_set(kt, cells.data(), 0, cells.size());
        put_cell(l, cells, v, ggml_row_size(p.type, p.DV*p.n_head_kv));
        ggml_backend_tensor_set(vt, cells.data(), 0, cells.size());
        ggml_backend_tensor_set(qt, qs.data(), 0, ggml_nbytes(qt));
        ggml_backend_tensor_set(mt, mask.data(), 0, ggml_nbytes(mt));
        ggml_backend_tensor_set(ot, order.data(), 0, ggml_nbytes(ot));
        if (l.ready && !l.ordered) {
            std::vector<ggml_fp16_t> in_order;
            for (int64_t i = 0; i < (int64_t) mask.size(); i++) {
                in_order.push_back(mask[i/n_kv*n_kv + order[i%n_kv]]);
            }
            ggml_backend_tensor_set(rt, in_order.data(), 0, ggml_nbytes(mt));
        }
        ggml_backend_tensor_set(st, sinks.data(), 0, ggml_nbytes(st));

        return c.compute(ctx, out, n_threads);
    }

    // the largest error of a node's result, as a share of the values' size
    double error(int node, const float * got) const {
        const int64_t group = p.n_head/p.n_head_kv;
        const int     log2  = 1 << (int) std::floor(std::log2(p.n_head));
        double worst = 0.0;
        for (int64_t h = 0; h < p.n_head; h++) {
            const double slope = p.max_bias <= 0.0f ? 1.0 : h < log2 ? std::pow(std::pow(2.0, -p.max_bias/log2), h + 1) : std::pow(std::pow(2.0, -p.max_bias/2.0/log2), 2*(h - log2) + 1);
            std::vector<double> s, o(p.DV);
            std::vector<int>    e;
            double m = p.sinks ? sinks[h] : -INFINITY;
            for (int i = 0; i < n_entry; i++) {
                if (!head_sees(node, i, h)) {
                    continue;
                }
                double dot = 0.0;
                for (int64_t d = 0; d < p.DK; d++) {
                    dot += (double) q[(node*p.n_head + h)*p.DK + d]*kf[(i*p.n_head_kv + h/group)*p.DK + d];
                }
                dot /= std::sqrt((double) p.DK);
                if (p.softcap > 0.0f) {
                    dot = p.softcap*std::tanh(dot/p.softcap);
                }
                if (p.max_bias > 0.0f) {
                    dot += slope*ggml_fp16_to_fp32(ggml_fp32_to_fp16((float) (position(i) - position(p.depth + node))));
                }
                s.push_back(dot);
                e.push_back(i);
                m = std::max(m, dot);
            }
            double sum = p.sinks ? std::exp(sinks[h] - m) : 0.0;
            for (size_t j = 0; j < s.size(); j++) {
                const double w = std::exp(s[j] - m);
                sum += w;
                for (int64_t d = 0; d < p.DV; d++) {
                    o[d] += w*vf[(e[j]*p.n_head_kv + h/group)*p.DV + d];
                }
            }
            for (int64_t d = 0; d < p.DV; d++) {
                const double err = std::fabs(got[h*p.DV + d] - o[d]/sum);
                worst = err <= worst ? worst : err; // a NaN is the worst
            }
        }
        return worst;
    }
};

// F32 sums over thousands of cells; values are of size 1
static constexpr double ERROR_TOL = 2e-5;

static void test_case(test_state & ts, const cpu & c, const attn_case & p) {
    const int n_tree = p.n_tree > 0 ? p.n_tree : ts.ext == extent::quick ? 20 : 64;
    const attn_test t(p, c, ts.rng, n_tree);
    const size_t size = p.n_head*p.DV;

    // as a batch writes it: the past, then the nodes in their order, then cells that hold nothing, padded as the cache pads
    layout plain;
    for (int i = 0; i < GGML_PAD(t.n_entry, 256); i++) {
        plain.at.push_back(i < t.n_entry ? i : -1);
    }

    std::vector<float> want;
    double err = 0.0;
    for (int i = 0; i < n_tree; i++) {
        const auto y = t.run(plain, { i }, 1);
        want.insert(want.end(), y.begin(), y.end());
        if (i%9 == 0) {
            const double e = t.error(i, y.data());
            err = e <= err ? err : e;
        }
    }
    ts.check(err <= ERROR_TOL, text("%s: close to the reference (largest error %.1e)", p.name().c_str(), err));

    const auto count_bad = [&](const layout & l, const std::vector<int> & nodes, int n_threads) {
        const auto y = t.run(l, nodes, n_threads);
        int n_bad = 0;
        for (size_t i = 0; i < nodes.size(); i++) {
            n_bad += !same_bits(y.data() + i*size, want.data() + nodes[i]*size, size);
        }
        return n_bad;
    };

    int n_bad = 0;
    for (int n_threads = 1; n_threads <= ts.n_threads; n_threads++) {
        for (const int n : { 1, 2, 3, 4, 5, 6, 8, 12, 16, 17, 31, 33, 64, 65, 70 }) {
            if (n > n_tree) {
                continue;
            }
            std::vector<int> nodes(n);
            std::iota(nodes.begin(), nodes.end(), n_tree - n);
            n_bad += count_bad(plain, nodes, n_threads);
        }
    }
    ts.check(n_bad == 0, text("%s: nodes of a tree in batches as by themselves (%d differ)", p.name().c_str(), n_bad));

    // one by one: only the cells of the node's own path, as if its siblings had never been
    n_bad = 0;
    for (int i = 0; i < n_tree; i += ts.ext == extent::full ? 1 : 5) {
        layout compact;
        for (int e = 0; e < t.n_entry; e++) {
            if (t.sees(i, e)) {
                compact.at.push_back(e);
            }
        }
        n_bad += count_bad(compact, { i }, 1);
        // fewer and more hidden cells behind them
        compact.at.resize(compact.at.size() + 7, -1);
        n_bad += count_bad(compact, { i }, 2);
    }
    ts.check(n_bad == 0, text("%s: hidden siblings change nothing (%d differ)", p.name().c_str(), n_bad));

    std::vector<int> all(n_tree);
    std::iota(all.begin(), all.end(), 0);

    // so many cells that the scores of all nodes and heads don't fit the memory for them at once
    n_bad = 0;
    layout wide = plain;
    wide.at.resize(9000, -1);
    for (int n_threads = 1; n_threads <= ts.n_threads; n_threads++) {
        n_bad += count_bad(wide, all, n_threads);
    }
    ts.check(n_bad == 0, text("%s: a cache of 9,000 cells changes nothing (%d differ)", p.name().c_str(), n_bad));

    // freed cells taken again: anywhere in the cache, with empty ones between
    n_bad = 0;
    for (int round = 0; round < 4; round++) {
        layout mixed;
        mixed.ordered = false;
        mixed.ready   = round%2 == 1;
        for (int e = 0; e < t.n_entry; e++) {
            mixed.at.push_back(e);
        }
        mixed.at.resize(GGML_PAD(t.n_entry + 40, 32), -1);
        // all cells, or those at the end, as when the nodes rejected before left theirs
        std::shuffle(round < 2 ? mixed.at.begin() : mixed.at.begin() + std::max(0, p.depth - 30), mixed.at.end(), ts.rng);
        n_bad += count_bad(mixed, all, 2);
        n_bad += count_bad(mixed, { n_tree - 1, 3, 7 }, 1);
        n_bad += count_bad(mixed, { n_tree/2 }, ts.n_threads);
    }
    ts.check(n_bad == 0, text("%s: wherever the cells lie (%d differ)", p.name().c_str(), n_bad));
}

void test_attention(test_state & ts) {
    const cpu c;
    const bool quick = ts.ext == extent::quick;

    const std::vector<ggml_type> types = { GGML_TYPE_F16, GGML_TYPE_F32, GGML_TYPE_BF16, GGML_TYPE_Q8_0 };
    for (const ggml_type type : types) {
        test_case(ts, c, { type, 64, 64, 9, 3, 10 });
        test_case(ts, c, { type, 64, 64, 3, 1, quick ? 150 : 600 });
    }
    test_case(ts, c, { GGML_TYPE_F16,  256, 256, 4, 1,  40 });
    test_case(ts, c, { GGML_TYPE_F16,   80,  80, 2, 2,  33 });
    test_case(ts, c, { GGML_TYPE_F16,   40,  40, 2, 1,  33 }); // not whole vectors of 16 lanes
    test_case(ts, c, { GGML_TYPE_Q8_0,  96,  96, 4, 2,  70 });
    test_case(ts, c, { GGML_TYPE_F16,  128, 128, 8, 1,  70 });
    test_case(ts, c, { GGML_TYPE_F16,  192, 128, 4, 4,  50 });
    test_case(ts, c, { GGML_TYPE_F16,   64,  64, 6, 2, 100, 8.0f });
    test_case(ts, c, { GGML_TYPE_F16,   64,  64, 4, 2, 100, 0.0f, 50.0f });
    test_case(ts, c, { GGML_TYPE_F16,   64,  64, 4, 2, 100, 0.0f, 0.0f, true });
    test_case(ts, c, { GGML_TYPE_F16,   64,  64, 6, 2, 300, 0.0f, 0.0f, false, 1, true });
    test_case(ts, c, { GGML_TYPE_F16,   64,  64, 2, 1,  40, 0.0f, 0.0f, false, 1, false, 70 });
    for (const int depth : { 40, 300 }) {
        test_case(ts, c, { GGML_TYPE_F16, 64, 64, 9, 3, depth, 0.0f, 0.0f, false, 4 });
        test_case(ts, c, { GGML_TYPE_F16, 64, 64, 4, 2, depth, 0.0f, 0.0f, true,  2 });
    }
    if (!quick) {
        test_case(ts, c, { GGML_TYPE_F16, 64, 64, 3, 1, 3000 });
    }
    if (ts.ext == extent::full) {
        for (const ggml_type type : { GGML_TYPE_F16, GGML_TYPE_F32, GGML_TYPE_BF16, GGML_TYPE_Q8_0, GGML_TYPE_Q4_0, GGML_TYPE_Q5_1 }) {
            for (const int depth : { 10, 600, 3000 }) {
                test_case(ts, c, { type,  64,  64,  9, 3, depth });
                test_case(ts, c, { type, 128, 128, 16, 2, depth });
                test_case(ts, c, { type, 256, 256,  4, 4, depth });
                test_case(ts, c, { type, 576, 512,  8, 1, depth });
            }
        }
    }
}

} // namespace batch_invariance
