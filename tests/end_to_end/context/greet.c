#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
	const char *greeted = getenv("GREETED");

	printf("hello, %s and %s\n", greeted ? greeted : "nobody", argc > 1 ? argv[1] : "nobody");
	return 0;
}
