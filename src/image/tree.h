/* tree.h - whole directories removed, without following a link or leaving them. */
#ifndef LODGE_IMAGE_TREE_H
#define LODGE_IMAGE_TREE_H

/* Remove name under directory, a file or a whole tree. Other filesystems
 * mounted in it stop it. Returns 0 or a negative errno without words; -ENOENT is 0. */
int tree_remove(int directory, const char *name);
/* Remove what is in the directory name, and keep it. */
int tree_empty(int directory, const char *name);

#endif
