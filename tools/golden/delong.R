# DeLong's intervals and tests by pROC, for eval_statistics.py.
#
#     Rscript delong.R CASES.csv LEVEL              one line of results for columns positive,a,b
#     Rscript delong.R --aSAH target/release/examples/delong
#
# The second form feeds pROC's own example data, which this repository does not hold, to ours and checks the
# figures that pROC's manual prints.

suppressPackageStartupMessages(library(pROC))
stopifnot(packageVersion("pROC") == "1.18.0")

# Positive is a higher score, whatever the data say; an AUC of 1 makes pROC warn.
curve <- function(truth, scores) roc(truth, scores, levels = c(0, 1), direction = "<", quiet = TRUE)
shown <- function(...) cat(sprintf("%.17g", c(...)), sep = "\n")

arguments <- commandArgs(trailingOnly = TRUE)
if (arguments[1] == "--aSAH") {
    data(aSAH)
    file <- tempfile()
    for (pair in list(c("wfns", "s100b"), c("wfns", "ndka"), c("s100b", "ndka"))) {
        truth <- as.integer(aSAH$outcome == "Poor")
        columns <- list(positive = truth, a = as.numeric(aSAH[[pair[1]]]), b = aSAH[[pair[2]]])
        write.table(columns, file, sep = ",", row.names = FALSE, col.names = FALSE)
        ours <- scan(text = system2(arguments[2], "0.95", stdin = file, stdout = TRUE), quiet = TRUE)
        a <- curve(truth, columns$a)
        b <- curve(truth, columns$b)
        test <- roc.test(a, b, method = "delong", paired = TRUE)
        theirs <- c(auc(a), var(a), ci.auc(a)[c(1, 3)], auc(b), var(b), ci.auc(b)[c(1, 3)],
                    test$conf.int, test$statistic, test$p.value)
        # aSAH holds decimals and ours reads them as f32: no two that differ become equal.
        stopifnot(length(ours) == length(theirs), abs(ours - theirs) < 1e-12)
        if (identical(pair, c("wfns", "s100b"))) {
            # The example in ?roc.test: Z = 2.209, p-value = 0.02718, AUCs 0.8236789 and 0.7313686.
            printed <- c(signif(ours[11:12], 4), signif(ours[c(1, 5)], 7))
            stopifnot(all.equal(printed, c(2.209, 0.02718, 0.8236789, 0.7313686), tolerance = 1e-12))
        }
        cat(sprintf("%s against %s: Z = %.4g, p = %.4g, as pROC\n", pair[1], pair[2], ours[11], ours[12]))
    }
} else {
    cases <- read.csv(arguments[1])
    level <- as.numeric(arguments[2])
    a <- curve(cases$positive, cases$a)
    b <- curve(cases$positive, cases$b)
    suppressWarnings({
        estimate <- function(roc) c(auc(roc), var(roc, method = "delong"), ci.auc(roc, level, "delong")[c(1, 3)])
        test <- roc.test(a, b, method = "delong", paired = TRUE, conf.level = level)
        shown(estimate(a), estimate(b), test$conf.int, test$statistic, test$p.value)
    })
}
