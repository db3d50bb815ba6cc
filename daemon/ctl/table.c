/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <stdlib.h>

#include "ctl/table.h"
#include "ctl/text.h"

#define GAP 2

Table *table_new(const Column *columns, size_t n_columns)
{
        Table *t = check_memory(calloc(1, sizeof(*t)));

        t->columns = columns;
        t->n_columns = n_columns;
        return t;
}

Table *table_free(Table *t)
{
        if (!t)
                return NULL;
        for (size_t i = 0; i < t->n_cells; i++)
                free(t->cells[i]);
        free(t->cells);
        free(t);
        return NULL;
}

void table_take(Table *t, char *text)
{
        /* Grown at each power of two. */
        if ((t->n_cells & (t->n_cells - 1)) == 0)
                t->cells = check_memory(
                        reallocarray(t->cells, t->n_cells ? t->n_cells * 2 : 1, sizeof(*t->cells)));
        t->cells[t->n_cells++] = text_escape(text);
        free(text);
}

void table_add(Table *t, const char *format, ...)
{
        char *text;
        va_list ap;
        int n;

        va_start(ap, format);
        n = vasprintf(&text, format, ap);
        va_end(ap);
        table_take(t, check_memory(n < 0 ? NULL : text));
}

static size_t column_width(const Table *t, size_t column)
{
        size_t width = text_width(t->columns[column].heading);

        for (size_t i = column; i < t->n_cells; i += t->n_columns)
                if (text_width(t->cells[i]) > width)
                        width = text_width(t->cells[i]);
        return width;
}

static void print_spaces(FILE *f, size_t n)
{
        fprintf(f, "%*s", (int)n, "");
}

/* No spaces at the ends of lines. */
static void print_cell(const Table *t, FILE *f, size_t column, size_t width, const char *text)
{
        size_t fill = width - text_width(text);
        bool last = column == t->n_columns - 1;

        if (t->columns[column].right)
                print_spaces(f, fill);
        fputs(text, f);
        if (last)
                fputc('\n', f);
        else
                print_spaces(f, (t->columns[column].right ? 0 : fill) + GAP);
}

void table_print(const Table *t, FILE *f, bool colour)
{
        _cleanup_(freep) size_t *widths = check_memory(calloc(t->n_columns, sizeof(*widths)));

        for (size_t i = 0; i < t->n_columns; i++)
                widths[i] = column_width(t, i);
        if (colour)
                fputs("\033[1m", f);
        for (size_t i = 0; i < t->n_columns; i++)
                print_cell(t, f, i, widths[i], t->columns[i].heading);
        if (colour)
                fputs("\033[0m", f);
        for (size_t i = 0; i < t->n_cells; i++)
                print_cell(t, f, i % t->n_columns, widths[i % t->n_columns], t->cells[i]);
}
