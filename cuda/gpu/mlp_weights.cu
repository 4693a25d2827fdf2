// Adds G^T H to a matrix, and the sum of G's rows to a vector: a layer's gradients, from what mlp_rows.cu kept. A block
// takes 64 x 64 numbers of the product, and of the rows every grid_blocks()-th stretch of 64.
#include "mlp_gradient.h"
#include "mlp_network.h"

namespace mlp {

struct WeightsArgs {
    const uint16_t* g;  // [rows][g_columns]
    const uint16_t* h;  // [rows][h_columns]
    float* to_weight;   // [height][apart], of which `width` columns are meant
    float* to_bias;     // [height]; null: not wanted
    const float* largest;
    int64_t rows;  // a multiple of 64
    int32_t g_columns, h_columns, height, width, apart;
    int32_t parts;  // as `add_layer` takes it
};

constexpr int warps = 4, side = 64;

// 64 rows and columns; zero beyond the columns that there are.
DEVICE_FN void fetch(uint16_t* to, const uint16_t* from, int64_t first_row, int first_column, int columns) {
    UNROLL
    for (int i = thread_index(); i < side * side / 8; i += 32 * warps) {
        const int row = i / (side / 8), column = i % (side / 8) * 8;
        uint4 eight = make_uint4(0, 0, 0, 0);
        if (first_column + column < columns)
            eight = *reinterpret_cast<const uint4*>(from + (first_row + row) * columns + first_column + column);
        *reinterpret_cast<uint4*>(to + row * stride(side) + column) = eight;
    }
}

KERNEL(mlp_weights, WeightsArgs, 32 * warps) {
    uint16_t* g = shared_memory<uint16_t>();
    uint16_t* h = g + matrix_size(side, side);
    const int across = (args.h_columns + side - 1) / side;
    const int row = block_index_y() / across * side, column = block_index_y() % across * side;
    WeightGradient<side, side, warps> gradient;
    for (int64_t first = block_index() * side; first < args.rows; first += grid_blocks() * side) {
        fetch(g, args.g, first, row, args.g_columns);
        fetch(h, args.h, first, column, args.h_columns);
        barrier();
        gradient.add<Format, side>(g, h);
        barrier();  // all have read what the next rows replace
    }
    const float scale = scale_of(args.largest).down;
    add_layer(gradient, args.to_weight, row, column, args.apart, args.height, args.width, args.parts, scale);
    if (args.to_bias && column == 0) gradient.add_to_bias(args.to_bias + row, args.height - row, scale);
}

}  // namespace mlp
