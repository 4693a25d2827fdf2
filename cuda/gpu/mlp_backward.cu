// A small network backward in one pass: a block takes 64 rows forward again, keeps what entered each layer in shared
// memory, and goes back through the layers. Gradients of weights stay in registers until the block has no more rows.
#include "mlp_gradient.h"
#include "mlp_network.h"

namespace mlp {

struct BackwardArgs {
    Network net;
    const float* grad;                // [count][rows of the last layer]
    const float* largest;             // as `scale_of` takes it
    float* to_x;                      // [count][inputs]; null: not wanted
    float* to_weight[most_layers];    // added to; to_weight[0] null: none are wanted
    float* to_bias[most_layers];      // likewise; null: none
};

constexpr int warps = 4, stretch = 16 * warps;
constexpr int last = layers - 1, hidden = layers - 1;  // the last layer; how many there are before it
constexpr int before_last = hidden ? width : input;    // columns that enter the last layer
static_assert(skips == 0, "inputs that enter again are for mlp_rows.cu");

// What entered each layer and, in its place later, the gradient by the sums that it came from. A thread writes its own
// warp's rows; G^T H reads all of the block's.
struct Kept {
    static constexpr int input_size = matrix_size(stretch, input), hidden_size = matrix_size(stretch, width);
    static constexpr int bytes = 2 * (input_size + hidden * hidden_size + matrix_size(stretch, output));
    uint16_t* start;

    DEVICE_FN uint16_t* entering(int layer) const { return start + (layer ? input_size + (layer - 1) * hidden_size : 0); }
    DEVICE_FN uint16_t* leaving(int layer) const { return start + input_size + layer * hidden_size; }

    template <int columns>
    DEVICE_FN static void put(uint16_t* to, const Rows<columns>& rows) {
        put_rows(to + warp_index() * matrix_size(16, columns), rows);
    }
};
static_assert(Staged<true>::bytes + Kept::bytes <= 99 * 1024, "larger networks are for mlp_rows.cu");

using Slopes = Rows<width>[hidden ? hidden : 1];  // of each layer's activation, at a lane's own rows

struct Gradients {
    WeightGradient<width, input, warps> first;
    WeightGradient<width, width, warps> middle[hidden > 1 ? hidden - 1 : 1];
    WeightGradient<output, before_last, warps> last;
};

// The network's sums before the last activation.
DEVICE_FN Sums<output> forward(const Network& net, const Staged<true>& staged, const Kept& kept, int64_t first,
                               Slopes& slopes) {
    const Rows<input> x = load_input(net, first);
    Kept::put(kept.entering(0), x);
    Sums<output> out = start<output>(staged.bias(last));
    if constexpr (hidden == 0) {
        multiply<Format>(out, x, staged.layer(net, 0));
    } else {
        Sums<width> sums = start<width>(staged.bias(0));
        multiply<Format>(sums, x, staged.layer(net, 0));
        Rows<width> rows = activate<Format>(sums, hidden_kind, net.omega, slopes[0]);
        Kept::put(kept.leaving(0), rows);
        unrolled<1, hidden>([&](auto index) {
            constexpr int l = decltype(index)::value;
            sums = start<width>(staged.bias(l));
            multiply<Format>(sums, rows, staged.layer(net, l));
            rows = activate<Format>(sums, hidden_kind, net.omega, slopes[l]);
            Kept::put(kept.leaving(l), rows);
        });
        multiply<Format>(out, rows, staged.layer(net, last));
    }
    return out;
}

// Through the layers before the last, from the last one's gradient; that of the first one's sums.
DEVICE_FN Rows<width> backward(const Network& net, const Staged<true>& staged, const Kept& kept,
                               const Rows<output>& above, const Slopes& slopes, Gradients& gradients) {
    Sums<width> sums = zero<width>();
    multiply_back<Format>(sums, above, staged.layer(net, last));
    Rows<width> rows;
    unrolled<0, hidden>([&](auto index) {
        constexpr int l = hidden - 1 - decltype(index)::value;
        scale_by<Format>(sums, slopes[l]);
        rows = round<Format>(sums);
        barrier();  // all have read what this layer's gradient replaces
        Kept::put(kept.leaving(l), rows);
        barrier();
        if constexpr (l == 0) {
            gradients.first.template add<Format, stretch>(kept.leaving(0), kept.entering(0));
        } else {
            gradients.middle[l - 1].template add<Format, stretch>(kept.leaving(l), kept.entering(l));
            sums = zero<width>();
            multiply_back<Format>(sums, rows, staged.layer(net, l));
        }
    });
    return rows;
}

template <int out>
DEVICE_FN void store_to_x(const BackwardArgs& args, const Staged<true>& staged, const Rows<out>& rows, int64_t first) {
    if (!args.to_x) return;
    Sums<input> to_x = zero<input>();
    multiply_back<Format>(to_x, rows, staged.layer(args.net, 0));
    scale_by(to_x, scale_of(args.largest).down);
    store_rows(args.to_x, to_x, first, args.net.count, args.net.inputs);
}

template <int rows, int columns>
DEVICE_FN void flush(const BackwardArgs& args, int layer, const WeightGradient<rows, columns, warps>& gradient) {
    const int height = args.net.rows[layer], width = columns_of(args.net, layer);
    const float scale = scale_of(args.largest).down;
    add_layer(gradient, args.to_weight[layer], 0, 0, width, height, width, exact && layer == 0, scale);
    gradient.add_to_bias(args.to_bias[layer], height, scale);
}

KERNEL_OF_BLOCKS(mlp_backward, BackwardArgs, 32 * warps, 1) {
    const Network& net = args.net;
    const Staged<true> staged(net);
    const Kept kept{shared_memory<uint16_t>(Staged<true>::bytes)};
    const Scale scale = scale_of(args.largest);
    Gradients gradients;
    for (int64_t tile = block_index(); tile * stretch < net.count; tile += grid_blocks()) {
        const int64_t first = tile * stretch + 16 * warp_index();
        Slopes slopes;
        const Sums<output> out = forward(net, staged, kept, first, slopes);
        const Rows<output> above = last_gradient(args.grad, scale, net, out, first);
        Kept::put(kept.leaving(last), above);
        barrier();
        gradients.last.template add<Format, stretch>(kept.leaving(last), kept.entering(last));
        if constexpr (hidden == 0)
            store_to_x(args, staged, above, first);
        else
            store_to_x(args, staged, backward(net, staged, kept, above, slopes, gradients), first);
        barrier();  // all have read what the next rows replace
    }
    if (!args.to_weight[0]) return;
    flush(args, last, gradients.last);
    if constexpr (hidden > 0) flush(args, 0, gradients.first);
    unrolled<1, hidden>([&](auto index) {
        constexpr int l = decltype(index)::value;
        flush(args, l, gradients.middle[l - 1]);
    });
}

}  // namespace mlp
