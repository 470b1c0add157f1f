from melanoma_edge.schemas import write

write()
