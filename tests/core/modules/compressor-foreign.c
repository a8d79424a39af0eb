/* A library that has nothing to do with Fairway. */
int foreign(void);
int foreign(void) { return 1; }
