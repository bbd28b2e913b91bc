/* How many numbers a file may have. */
#define MOST_NUMBERS 1024
