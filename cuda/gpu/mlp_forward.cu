// A network forward: all layers in one pass, a warp and 16 rows at a time.
#include "mlp_network.h"

namespace mlp {

struct ForwardArgs {
    Network net;
    float* out;  // [count][rows of the last layer]
};

constexpr int warps = 8;
constexpr bool resident = Staged<true>::bytes <= resident_bytes;

// Wide ones need registers more than several blocks at a time on a multiprocessor.
#if MLP_WIDTH > 64
KERNEL_OF_BLOCKS(mlp_forward, ForwardArgs, 32 * warps, 1) {
#else
KERNEL(mlp_forward, ForwardArgs, 32 * warps) {
#endif
    const Network& net = args.net;
    const Staged<resident> staged(net);
    for (int64_t tile = block_index(); tile * 16 * warps < net.count; tile += grid_blocks()) {
        const int64_t first = (tile * warps + warp_index()) * 16;
        Sums<output> out;
        if constexpr (layers == 1) {
            const uint16_t* matrix = staged.layer(net, 0);
            out = start<output>(staged.bias(0));
            multiply<Format>(out, load_input(net, first), matrix);
        } else {
            const uint16_t* matrix = staged.layer(net, 0);
            Sums<width> sums = start<width>(staged.bias(0));
            multiply<Format>(sums, load_input(net, first), matrix);
            Rows<width> rows = activate<Format>(sums, hidden_kind, net.omega);
            NO_UNROLL
            for (int layer = 1; layer < layers - 1; ++layer)
                rows = activate<Format>(next_layer<width>(net, staged, layer, rows, first), hidden_kind, net.omega);
            out = next_layer<output>(net, staged, layers - 1, rows, first);
        }
        apply(out, output_kind, net.omega);
        store_rows(args.out, out, first, net.count, net.rows[layers - 1]);
    }
}

}  // namespace mlp
