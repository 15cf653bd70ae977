"""What views share: the query, cards, one panel in detail, galleries, form fields, exports."""
