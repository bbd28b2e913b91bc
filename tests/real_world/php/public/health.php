<?php echo "healthy";
