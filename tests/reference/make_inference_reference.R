# Makes inference_reference.json: numbers of R that the tests of the association inference compare with.
#
# Run from the repository root: Rscript tests/reference/make_inference_reference.R
# p.adjust and binom.test are R's own; qvalue is Bioconductor's. It needs no regeneration unless a case is added.

library(qvalue)

number <- function(x) ifelse(is.na(x), "null", sprintf("%.17g", x))
array <- function(x) paste0("[", paste(number(x), collapse = ","), "]")
object <- function(entries) {
  paste0("{", paste0("\"", names(entries), "\":", unlist(entries), collapse = ","), "}")
}

# The example of ?p.adjust; p with ties, and p down to the smallest doubles.
set.seed(123)
x <- rnorm(50, mean = c(rep(0, 25), rep(3, 25)))
vectors <- list(
  2 * pnorm(sort(-abs(x))),
  c(0.01, 0.02, 0.02, 0.04, 0.5, 0.5, 1, 0.03),
  c(1e-300, 3e-299, 0.2, 1e-12, 0.9, 0.049, 1e-300),
  c(0.04, NA, 0.01, 0.03, NA),
  0.05
)
adjusted <- sapply(vectors, function(p) {
  methods <- c("bonferroni", "holm", "hochberg", "BH", "BY")
  entries <- lapply(methods, function(method) array(p.adjust(p, method)))
  object(c(list(p = array(p)), setNames(entries, methods)))
})

# p without random numbers, the same in any language: the golden sequence, its first share raised to a power.
golden <- function(n, share, power) {
  u <- (seq_len(n) * 0.6180339887498949) %% 1
  effects <- seq_len(n) <= round(share * n)
  ifelse(effects, u^power, u)
}
settings <- data.frame(
  n = c(2000, 2000, 5000, 20000, 1500, 400, 3000),
  share = c(0, 0.3, 0.1, 0.05, 0.9, 0.5, 0.5),
  power = c(1, 6, 10, 20, 4, 8, 2)
)
shares <- sapply(seq_len(nrow(settings)), function(k) {
  s <- settings[k, ]
  q <- qvalue(golden(s$n, s$share, s$power))
  object(list(
    n = s$n, share = s$share, power = s$power, pi0 = number(q$pi0),
    pi0_by_lambda = array(q$pi0.lambda), q_of_first_ten = array(q$qvalues[1:10])
  ))
})

counts <- rbind(c(0, 7), c(7, 7), c(3, 10), c(1, 100), c(60, 64), c(500, 1000), c(1, 1))
intervals <- apply(counts, 1, function(k) array(c(k, binom.test(k[1], k[2])$conf.int)))

list_of <- function(texts) paste0("[", paste(texts, collapse = ","), "]")
made_by <- object(list(
  R = paste0("\"", getRversion(), "\""), qvalue = paste0("\"", packageVersion("qvalue"), "\"")
))
cat(object(list(
  made_by = made_by, adjusted = list_of(adjusted), null_share = list_of(shares),
  exact_binomial = list_of(intervals)
)), "\n", sep = "", file = "tests/reference/inference_reference.json")
