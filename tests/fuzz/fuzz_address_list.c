/* KEN_PEERS: any text is either taken, and then says what its entries say, or refused with the entry named. */
#include "net/address_list.h"
#include "net/address_text.h"

#include <stdlib.h>

static void check_entry(const struct address_list *l, const struct address_entry *e)
{
    char text[ADDRESS_TEXT];
    struct wire_address a = e->address, back;
    if (address_list_match(l, &a) != LISTED_YES || address_list_match_source(l, &a) == LISTED_NO)
        abort();
    a.port = 0;
    size_t length = address_print(text, &a);
    if (length >= sizeof text || !address_scan(&back, text, length) || !wire_same_address(&a, &back))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct address_list list;
    const char *wrong = NULL;
    size_t wrong_length = 0;
    char *text = malloc(size + 1);
    memcpy(text, data, size);
    text[size] = '\0';
    int r = address_list_read(&list, text, &wrong, &wrong_length);
    if (r < 0 && (list.entries || list.names || wrong < text || !wrong_length || wrong + wrong_length > text + strlen(text)))
        abort();
    for (uint32_t i = 0; i < list.entries; i++)
        check_entry(&list, &list.entry[i]);
    struct wire_address a = {.bytes = {[10] = 0xff, 0xff, 10, 0, 0, 1}, .port = 80};
    for (uint32_t i = 0; i < list.names; i++)
        if (address_list_resolve(&list, i, &a) == 0 && address_list_match(&list, &a) == LISTED_NO)
            abort();
    free(text);
    return 0;
}
