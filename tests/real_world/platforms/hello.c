/* Says what it was built for, and what lies beside it. */
#include <stdio.h>

int main(void)
{
	char line[80];
	FILE *file = fopen("/data.txt", "r");
	if (!file || !fgets(line, sizeof line, file))
		return 1;
	printf("%s: %s", PLATFORM, line);
	return 0;
}
