// Launches kernels again that tests/launches.py recorded, each on copies of the memory that it was given, of exactly the
// same size: so that sanitizers, which Python doesn't run under, see all that the kernels read and write.
//
// The file is of 64-bit numbers, but for texts and bytes, whose number comes before them. A launch: the image's text, the
// kernel's name, blocks, blocks_y, threads, bytes of shared memory; its argument's bytes; how many pieces of memory, the
// bytes of each; how many pointers in the argument, and for each where it is there, which piece it points into and how
// far. The schedule's kind is the command's second argument.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

extern "C" {
int cuInit(unsigned);
int cuDevicePrimaryCtxRetain(void**, int);
int cuCtxSetCurrent(void*);
int cuModuleLoadData(void**, const void*);
int cuModuleGetFunction(void**, void*, const char*);
int cuFuncSetAttribute(void*, int, int);
int cuLaunchKernel(void*, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void*, void**, void**);
const char* emulation_error();
void emulation_schedule(int, uint32_t);
}

namespace {

std::FILE* file;

bool read_number(int64_t& number) { return std::fread(&number, sizeof number, 1, file) == 1; }
int64_t number() {
    int64_t value = 0;
    if (!read_number(value)) std::puts("the file ends early"), std::exit(4);
    return value;
}
std::string bytes(int64_t count) {
    std::string text(count, 0);
    if (count && std::fread(&text[0], count, 1, file) != 1) std::puts("the file ends early"), std::exit(4);
    return text;
}
void require(int result, const char* what) {
    if (result) std::printf("%s: %s\n", what, emulation_error()), std::exit(2);
}

void launch(const std::string& image) {
    const std::string name = bytes(number());
    int64_t grid[4];
    for (int64_t& value : grid) value = number();
    std::string argument = bytes(number());
    std::vector<char*> pieces(number());
    for (char*& piece : pieces) {
        const std::string content = bytes(number());
        piece = static_cast<char*>(std::malloc(content.size()));
        std::memcpy(piece, content.data(), content.size());
    }
    for (int64_t left = number(); left > 0; --left) {
        const int64_t place = number(), piece = number(), offset = number();
        char* pointer = pieces[piece] + offset;
        std::memcpy(&argument[place], &pointer, sizeof pointer);
    }
    void *module, *function;
    require(cuModuleLoadData(&module, image.c_str()), "cuModuleLoadData");
    require(cuModuleGetFunction(&function, module, name.c_str()), "cuModuleGetFunction");
    require(cuFuncSetAttribute(function, 8, static_cast<int>(grid[3])), "cuFuncSetAttribute");
    void* each[] = {&argument[0]};
    require(cuLaunchKernel(function, grid[0], grid[1], 1, grid[2], 1, 1, grid[3], nullptr, each, nullptr), "cuLaunchKernel");
    for (char* piece : pieces) std::free(piece);
}

}  // namespace

int main(int count, char** arguments) {
    if (count != 3 || !(file = std::fopen(arguments[1], "rb"))) return std::puts("replay FILE SCHEDULE"), 3;
    void* context;
    require(cuInit(0), "cuInit");
    require(cuDevicePrimaryCtxRetain(&context, 0), "cuDevicePrimaryCtxRetain");
    require(cuCtxSetCurrent(context), "cuCtxSetCurrent");
    emulation_schedule(std::atoi(arguments[2]), 7);
    for (int64_t length; read_number(length);) launch(bytes(length));
    std::puts("all well");
}
