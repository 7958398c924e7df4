"""The auth checker answers: is this key good, and who is calling? It folds the ledger into LMDB and asks nobody."""
