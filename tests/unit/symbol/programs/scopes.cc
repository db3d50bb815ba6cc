/* SPDX-License-Identifier: Apache-2.0 */
/* C++ without its library: any compiler builds it. */
namespace song
{
namespace
{
struct Hidden {
        __attribute__((noinline)) int get(int x)
        {
                __asm__ volatile(".globl place_anonymous\nplace_anonymous: nop");
                return x;
        }
};
} // namespace

template <typename T> struct Box {
        T value;
        __attribute__((noinline)) T times(T by) const;
};

template <typename T> static inline __attribute__((always_inline)) T twice(T x)
{
        __asm__ volatile(".globl place_twice\nplace_twice: nop"); /* line 23 */
        return x * 2;
}

template <typename T> T Box<T>::times(T by) const
{
        return value * twice(by); /* line 29 */
}

__attribute__((noinline)) int play(int x)
{
        auto later = [](int y) __attribute__((noinline))
        {
                __asm__ volatile(".globl place_lambda\nplace_lambda: nop");
                return y;
        };

        return Hidden().get(x) + Box<int>{x}.times(x) + later(x);
}
} // namespace song

int main(int argc, char **)
{
        return song::play(argc) == 12345;
}
