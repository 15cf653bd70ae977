"""The loss review as experiments: `findings` declares them, `schedule` trains them, `tables` says what came out."""
