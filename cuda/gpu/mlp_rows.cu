// A wide or deep network backward, but for its weights: forward again, then the gradient by every layer's sums, down to x.
// What entered the layers and those gradients goes to global memory, rounded, for mlp_weights.cu to multiply.
#include "mlp_network.h"

namespace mlp {

// Rows of kept matrices are [padded][columns], padded to whole blocks of rows; those beyond `count` get a gradient of 0.
struct RowsArgs {
    Network net;
    const float* grad;     // [count][rows of the last layer]
    const float* largest;  // as `scale_of` takes it
    float* to_x;           // [count][inputs]; null: not wanted
    uint16_t* x;           // [padded][input]
    uint16_t* values;      // [layers - 1][padded][width]: what leaves each layer before the last
    uint16_t* gradients;   // [layers - 1][padded][width]: by those layers' sums; until then, the activations' slopes
    uint16_t* last;        // [padded][output]: by the last layer's sums
    int64_t padded;
};

constexpr int warps = 8, last = layers - 1;
constexpr bool resident = Staged<true>::bytes <= resident_bytes;

template <int columns>
DEVICE_FN void write_rows(uint16_t* to, const Rows<columns>& rows) {
    UNROLL
    for (int k = 0; k < columns / 16; ++k) {
        UNROLL
        for (int i = 0; i < 4; ++i)
            *reinterpret_cast<uint32_t*>(to + row_of(i) * columns + 16 * k + column_of(i)) = rows.part[k][i];
    }
}

// A warp's slopes, as its lanes hold them: nobody else reads them.
DEVICE_FN uint4* slope_place(uint16_t* to, int k) { return reinterpret_cast<uint4*>(to) + 32 * k + lane_index(); }
DEVICE_FN void write_slopes(uint16_t* to, const Rows<width>& rows) {
    UNROLL
    for (int k = 0; k < width / 16; ++k)
        *slope_place(to, k) = make_uint4(rows.part[k][0], rows.part[k][1], rows.part[k][2], rows.part[k][3]);
}
DEVICE_FN Rows<width> read_slopes(uint16_t* from) {
    Rows<width> rows;
    UNROLL
    for (int k = 0; k < width / 16; ++k) {
        const uint4 four = *slope_place(from, k);
        rows.part[k][0] = four.x, rows.part[k][1] = four.y, rows.part[k][2] = four.z, rows.part[k][3] = four.w;
    }
    return rows;
}

// Where 16 rows of a hidden layer begin in `values` and `gradients`.
DEVICE_FN int64_t place_of(const RowsArgs& args, int layer, int64_t first) {
    return (layer * args.padded + first) * width;
}

// The network's sums before the last activation.
DEVICE_FN Sums<output> forward(const RowsArgs& args, const Staged<resident>& staged, int64_t first) {
    const Network& net = args.net;
    const Rows<input> x = load_input(net, first);
    write_rows(args.x + first * input, x);
    const uint16_t* matrix = staged.layer(net, 0);
    if constexpr (last == 0) {
        Sums<output> out = start<output>(staged.bias(0));
        multiply<Format>(out, x, matrix);
        return out;
    } else {
        Sums<width> sums = start<width>(staged.bias(0));
        multiply<Format>(sums, x, matrix);
        Rows<width> rows;
        NO_UNROLL
        for (int layer = 0; layer < last; ++layer) {
            Rows<width> slopes;
            rows = activate<Format>(sums, hidden_kind, net.omega, slopes);
            write_rows(args.values + place_of(args, layer, first), rows);
            write_slopes(args.gradients + place_of(args, layer, first), slopes);
            if (layer < last - 1) sums = next_layer<width>(net, staged, layer + 1, rows, first);
        }
        return next_layer<output>(net, staged, last, rows, first);
    }
}

// What x gets from a layer, by the columns of its matrix that are of x; added to what it got from layers above.
template <int out>
DEVICE_FN void to_x(const RowsArgs& args, const Rows<out>& rows, const uint16_t* matrix, int layer, int64_t first) {
    const Network& net = args.net;
    if (!args.to_x) return;
    Sums<input> sums = zero<input>();
    multiply_back<Format>(sums, rows, matrix);
    scale_by(sums, scale_of(args.largest).down);
    if (skips >> (layer + 1)) {
        const Sums<input> before = load_sums<input>(args.to_x, first, net.count, net.inputs);
        UNROLL
        for (int n = 0; n < input / 8; ++n) {
            UNROLL
            for (int i = 0; i < 4; ++i) sums.tile[n][i] += before.tile[n][i];
        }
    }
    store_rows(args.to_x, sums, first, net.count, net.inputs);
}

DEVICE_FN void backward(const RowsArgs& args, const Staged<resident>& staged, const Rows<output>& above,
                        int64_t first) {
    const uint16_t* matrix = staged.layer(args.net, last);
    if constexpr (last == 0) {
        to_x(args, above, matrix, 0, first);
    } else {
        Sums<width> sums = zero<width>();
        multiply_back<Format>(sums, above, matrix);
        if (enters_again(last)) to_x(args, above, matrix + matrix_size(output, width), last, first);
        NO_UNROLL
        for (int layer = last - 1; layer >= 0; --layer) {
            uint16_t* place = args.gradients + place_of(args, layer, first);
            scale_by<Format>(sums, read_slopes(place));
            warp_barrier();  // all lanes have read the slopes that the gradients replace
            const Rows<width> rows = round<Format>(sums);
            write_rows(place, rows);
            matrix = staged.layer(args.net, layer);
            if (layer == 0) {
                to_x(args, rows, matrix, 0, first);
            } else {
                sums = zero<width>();
                multiply_back<Format>(sums, rows, matrix);
                if (enters_again(layer)) to_x(args, rows, matrix + matrix_size(width, width), layer, first);
            }
        }
    }
}

KERNEL_OF_BLOCKS(mlp_rows, RowsArgs, 32 * warps, 1) {
    const Network& net = args.net;
    const Staged<resident> staged(net);
    for (int64_t tile = block_index(); tile * 16 * warps < net.count; tile += grid_blocks()) {
        const int64_t first = (tile * warps + warp_index()) * 16;
        const Sums<output> out = forward(args, staged, first);
        const Rows<output> above = last_gradient(args.grad, scale_of(args.largest), net, out, first);
        write_rows(args.last + first * output, above);
        backward(args, staged, above, first);
    }
}

}  // namespace mlp
