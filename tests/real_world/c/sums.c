/* Prints the sum of a file's numbers and their root mean square. */
#include <math.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "sums.h"

int main(int count, char **arguments)
{
	double number, sum = 0, squares = 0;
	int read = 0;
	if (count == 2 && strcmp(arguments[1], "selftest") == 0)
		return sqrt(9.0) == 3.0 ? 0 : 1;
	FILE *file = count == 2 ? fopen(arguments[1], "r") : NULL;
	if (!file) {
		fputs("usage: sums file\n", stderr);
		return 2;
	}
	while (read < MOST_NUMBERS && fscanf(file, "%lf", &number) == 1) {
		sum += number;
		squares += number * number;
		read++;
	}
	struct passwd *user = getpwuid(getuid());
	printf("%s: %g %g\n", user ? user->pw_name : "?", sum, read ? sqrt(squares / read) : 0);
	return 0;
}
