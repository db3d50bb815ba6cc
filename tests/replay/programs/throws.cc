/* SPDX-License-Identifier: Apache-2.0 */

/* throws SHAPE: exceptions on their way, and below them a thread that sleeps in pause(). */

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>
#include <unistd.h>
#include <vector>

#define NOINLINE __attribute__((noinline, noclone, noipa))

static volatile unsigned long sink;

static void NOINLINE leaf()
{
        pause();
        sink = sink + 1;
}

struct Quiet {
        NOINLINE ~Quiet()
        {
                sink = sink + 1;
        }
};

struct Sleeper {
        NOINLINE ~Sleeper()
        {
                leaf();
                sink = sink + 1;
        }
};

static void NOINLINE thrower(const std::string &text)
{
        Quiet quiet;

        if (text.size() > 3)
                throw std::runtime_error(text);
        sink = sink + 1;
}

/* ---- a destructor that the exception passes ---- */

static void NOINLINE passed()
{
        Sleeper sleeper;

        thrower("passed");
}

static void destructor()
{
        try {
                passed();
        } catch (const std::exception &e) {
                sink = sink + strlen(e.what());
        }
}

/* ---- a handler, and one in which another exception passes a destructor ---- */

static void handler()
{
        try {
                thrower("handler");
        } catch (const std::exception &e) {
                leaf();
                sink = sink + strlen(e.what());
        }
}

static void NOINLINE throw_again()
{
        try {
                thrower("first");
        } catch (const std::exception &) {
                Sleeper sleeper;

                throw;
        }
}

static void rethrown()
{
        try {
                throw_again();
        } catch (...) {
                sink = sink + 1;
        }
}

/* ---- no handler: std::terminate ---- */

static void NOINLINE may_not_throw() noexcept
{
        thrower("terminate");
}

static void terminated()
{
        std::set_terminate([] { leaf(); });
        may_not_throw();
}

/* ---- called by the library's templates, and through the thunk of a second base ---- */

static void sorted()
{
        std::vector<int> values{3, 1, 2};

        std::sort(values.begin(), values.end(), [](int a, int b) {
                leaf();
                return a < b;
        });
}

struct First {
        virtual ~First() = default;
        virtual void first() = 0;
        long first_value = 1;
};

struct Second {
        virtual ~Second() = default;
        virtual void second() = 0;
        long second_value = 2;
};

struct Both : First, Second {
        void NOINLINE first() override
        {
                sink = sink + first_value;
        }
        void NOINLINE second() override
        {
                leaf();
                sink = sink + second_value;
        }
};

static void NOINLINE call(Second *s)
{
        s->second();
        sink = sink + 1;
}

static void thunk()
{
        Both both;

        call(&both);
}

int main(int argc, char **argv)
{
        static const struct {
                const char *name;
                void (*run)();
        } shapes[] = {
                {"destructor", destructor},
                {"handler", handler},
                {"rethrown", rethrown},
                {"terminated", terminated},
                {"sorted", sorted},
                {"thunk", thunk},
        };

        for (const auto &shape : shapes)
                if (argc > 1 && strcmp(argv[1], shape.name) == 0)
                        shape.run();
        return 1;
}
