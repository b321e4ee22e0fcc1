"""The paper's own numbers, as printed."""

#: Table 1, agreement: of S(M) without a defence; then, in the order of ``grids.NAMES``, of P and of
#: S(P), None where the text is lost.
TABLE_1 = {
    "mnist": (0.93, ((0.89, 0.70), (0.87, 0.12), (0.89, 0.91), (0.87, 0.11), (0.89, 0.92))),
    "fashion_mnist": (0.95, ((0.98, 0.50), (0.56, 0.09), (0.86, 0.91), (0.86, 0.90), (0.91, 0.89))),
    "cifar10": (0.82, ((0.81, 0.09), (0.49, 0.09), (0.70, 0.12), (0.80, 0.69), (0.77, 0.74))),
    "cifar100": (0.48, ((1.00, 0.02), (0.82, 0.02), (0.82, 0.02), (0.82, 0.02), (0.56, 0.48))),
    "stl10": (0.62, ((0.99, 0.31), None, (0.92, 0.57), (0.98, 0.59), (0.61, 0.64))),
}
#: Table 2, Reverse Sigmoid: accuracy of M, P, S(P); cosine, MAE, KL of P and M.
TABLE_2 = {
    "mnist": (0.99, 0.99, 0.68, 0.41, 0.18, 3.27),
    "fashion_mnist": (0.87, 0.87, 0.66, 0.47, 0.16, 2.84),
    "cifar10": (0.75, 0.73, 0.53, 0.77, 0.11, 1.74),
    "cifar100": (0.43, 0.43, 0.02, 0.33, 0.02, 2.30),
    "stl10": (0.61, 0.61, 0.29, 0.74, 0.16, 2.20),
}
#: Table 3, CIFAR-10: accuracy of M, P, S(P).
TABLE_3 = {
    "allconv": (0.80, 0.80, 0.58),
    "simple": (0.70, 0.69, 0.50),
    "xception": (0.36, 0.36, 0.23),
    "mobilenet": (0.24, 0.22, 0.21),
}
#: Table 4, CIFAR-10: agreement of the substitute, by the name of the thief.
TABLE_4 = {
    "sample-same_layer": 0.10,
    "sample-mse": 0.18,
    "sample-mlp": 0.22,
    "sample-labels": 0.78,
}
